package lint

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// WriteText writes a report for people: the findings of each file together, the worst first, each with its remedy.
func (r *Report) WriteText(out io.Writer) error {
	w := bufio.NewWriter(out)
	for _, file := range r.Files {
		if len(file.Is) == 0 && len(r.Files) > 1 && !r.has(file.File) {
			continue // one of many files in a directory
		}
		fmt.Fprintf(w, "%s: %s\n", clean(file.File), describe(file.Is))
		r.writeFindings(w, file.File)
	}
	fmt.Fprintln(w, r.Summary())
	return w.Flush()
}

// writeFindings writes the findings of a file. Findings that differ only by their line are written as one.
func (r *Report) writeFindings(w io.Writer, file string) {
	type kind struct{ rule, object, field, wrong string }
	of := func(f *Finding) kind { return kind{f.Rule, f.Object, f.Field, f.Wrong} }
	times := make(map[kind]int)
	for i := range r.Findings {
		if f := &r.Findings[i]; f.File == file {
			times[of(f)]++
		}
	}
	for i := range r.Findings {
		if f := &r.Findings[i]; f.File == file && times[of(f)] > 0 {
			writeFinding(w, f, times[of(f)]-1)
			times[of(f)] = 0
		}
	}
}

func (r *Report) has(file string) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.File == file })
}

// writeFinding writes a finding. more is the number of other places with the same finding.
func writeFinding(w io.Writer, f *Finding, more int) {
	where := f.Object
	if f.Field != "" {
		where = strings.TrimPrefix(where+": "+f.Field, ": ")
	}
	if f.Line > 0 {
		lines := fmt.Sprintf("line %d", f.Line)
		if more > 0 {
			lines += " and " + count(more, "more place")
		}
		where = strings.TrimSuffix(lines+", "+where, ", ")
	}
	fmt.Fprintf(w, "  %-7s %s  %s\n", f.Severity, f.Rule, clean(where))
	fmt.Fprintf(w, "      %s.\n", clean(f.Wrong))
	fmt.Fprintf(w, "      -> %s\n", clean(f.Remedy))
}

// describe says what a file is.
func describe(is []string) string {
	const most = 4
	switch {
	case len(is) == 0:
		return "nothing to check"
	case len(is) > most:
		return clean(fmt.Sprintf("%s and %d more", strings.Join(is[:most], ", "), len(is)-most))
	}
	return clean(strings.Join(is, ", "))
}

// Summary is the last line of the report.
func (r *Report) Summary() string {
	if len(r.Findings) == 0 {
		return "All is well."
	}
	return fmt.Sprintf("%s, %s, %s.", count(r.Errors, "error"), count(r.Warnings, "warning"), count(r.Infos, "note"))
}

func count(n int, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// clean puts text from files on one line and removes control characters, which could control the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return '?'
		}
		return r
	}, s)
}
