package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/envoy/bench/evaluators"
)

const (
	// pluginCases has the policies of the drop-in cases. The program runs in the top folder of the repository.
	pluginCases = "authz/extauthz/testdata/opa-envoy.jsonl"
	// tolerated is how many times the time of OPA's evaluator a program may take.
	tolerated = 1.2
	// loadedRules is the size of the policy whose loading is measured.
	loadedRules = 1000
)

// compareEvaluators prints what decisions cost with OPA's evaluator and with compiled programs. It fails if a row cannot be
// measured, after printing the others.
func compareEvaluators(ctx context.Context, o options, w io.Writer) error {
	cases, err := os.ReadFile(pluginCases)
	if err != nil {
		return err
	}
	rows, err := evaluators.Rows(cases, strings.FieldsFunc(o.only, func(r rune) bool { return r == ',' })...)
	if err != nil {
		return err
	}
	progress("measuring %d rows", len(rows))
	turns := evaluators.Options{Rounds: o.rounds, Turn: time.Duration(o.seconds * float64(time.Second))}
	results, err := evaluators.Measure(ctx, rows, turns)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	tables := []table{costTable(results)}
	if o.only == "" {
		loading, failed := loadingTable(ctx, o.rounds)
		tables, err = append(tables, loading), errors.Join(err, failed)
	}
	note := slowRows(results)
	print := func(w io.Writer, form func(*table, io.Writer) error) error {
		_, err := fmt.Fprintf(w, "Medians of %d × %v of processor time, on one processor of %s\n\n", o.rounds, turns.Turn, machine())
		for i := range tables {
			err = errors.Join(err, form(&tables[i], w))
		}
		_, failed := fmt.Fprintf(w, "\n%s\n", note)
		return errors.Join(err, failed)
	}
	err = errors.Join(print(w, (*table).text), err)
	if o.markdown != "" {
		err = errors.Join(err, writeFile(o.markdown, func(w io.Writer) error { return print(w, (*table).markdown) }))
	}
	return err
}

func costTable(results []evaluators.Result) table {
	t := table{
		title:  "Decisions without verdict cache, by OPA's evaluator (topdown) and by compiled programs",
		header: []string{"policy and request", "topdown ns", "compiled ns", "to topdown", "topdown allocs", "compiled allocs"},
	}
	for _, r := range results {
		t.rows = append(t.rows, []string{
			r.Name, count(r.Topdown.Nanos), count(r.Compiled.Nanos), share(r.Ratio), count(r.Topdown.Allocs), count(r.Compiled.Allocs),
		})
	}
	return t
}

func loadingTable(ctx context.Context, rounds int) (table, error) {
	topdown, compiled, err := evaluators.MeasureLoading(ctx, evaluators.Guarded(loadedRules), rounds)
	t := table{
		title:  fmt.Sprintf("Loading %s guarded rules; a policy with a program can also be evaluated by OPA's evaluator", grouped(loadedRules)),
		header: []string{"", "topdown", "compiled", "the program alone"},
	}
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.0f ms", d.Seconds()*1e3) }
	memory := func(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
	t.rows = [][]string{
		{"processor time", seconds(topdown.Time), seconds(compiled.Time), seconds(compiled.Time - topdown.Time)},
		{"memory after a garbage collection", memory(topdown.Live), memory(compiled.Live), memory(compiled.Live - topdown.Live)},
	}
	return t, err
}

// slowRows names the rows in which a program takes more than the tolerated time.
func slowRows(results []evaluators.Result) string {
	var slow []string
	for _, r := range results {
		if r.Worst > tolerated {
			slow = append(slow, fmt.Sprintf("%s (%s)", r.WorstName, share(r.Worst)))
		}
	}
	if slow == nil {
		return fmt.Sprintf("No program takes more than %v times the time of OPA's evaluator.", tolerated)
	}
	return fmt.Sprintf("Programs take more than %v times the time of OPA's evaluator for %d of %d: %s.", tolerated, len(slow), len(results), strings.Join(slow, "; "))
}

// share formats a ratio with two digits that count, "-" where there is none.
func share(f float64) string {
	if f <= 0 || math.IsNaN(f) || math.IsInf(f, 0) {
		return "-"
	}
	return fmt.Sprintf("%.*f×", max(0, 1-int(math.Floor(math.Log10(f)))), f)
}
