package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// report holds all measurements.
type report struct {
	date    time.Time
	machine string
	options options
	direct  []results
	envoy   []*setup
}

// publish prints the report and writes the requested files.
func (r *report) publish() error {
	fmt.Printf("\n%s\n%s\n\n", r.heading(), r.machine)
	var err error
	for _, t := range r.tables() {
		err = errors.Join(err, t.text(os.Stdout))
	}
	if note := r.note(); note != "" {
		fmt.Println(note)
	}
	if path := r.options.markdown; path != "" {
		err = errors.Join(err, writeFile(path, r.markdown))
	}
	if path := r.options.svg; path != "" {
		err = errors.Join(err, writeFile(path, func(w io.Writer) error { return drawBars(w, "Server CPU per check", r.bars()) }))
	}
	return err
}

// denials is an error that names the rivals with unexpected answers, nil if there are none.
func (r *report) denials() error {
	var all []error
	note := func(label string, t *measurement) {
		if t.denied > 0 {
			all = append(all, fmt.Errorf("%s denied %d, and allowed %d in that turn: %w", label, t.denied, t.calls, t.denial))
		}
	}
	for _, one := range r.direct {
		for _, s := range one.rounds {
			note(one.rival.label, s.measurement)
		}
	}
	for _, s := range r.envoy {
		for _, t := range s.rounds {
			note("Envoy, "+s.label, t)
		}
	}
	return errors.Join(all...)
}

func (r *report) heading() string {
	return fmt.Sprintf("Medians of %d × %v s, %s", r.options.rounds, r.options.seconds, r.date.Format("2 January 2006"))
}

func (r *report) markdown(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s, on %s.\n", r.heading(), r.machine)
	for _, t := range r.tables() {
		err = errors.Join(err, t.markdown(w))
	}
	if note := r.note(); note != "" {
		_, failed := fmt.Fprintf(w, "\n%s\n", note)
		err = errors.Join(err, failed)
	}
	return err
}

// note explains rows of the tables, "" if none needs it.
func (r *report) note() string {
	for _, one := range r.direct {
		if t := one.rival.load.targets; len(t) > 0 && t[0].shape.length > 0 {
			return idPathsNote
		}
	}
	return ""
}

func (r *report) tables() []table {
	tables := []table{r.directTable()}
	if len(r.envoy) > 0 {
		tables = append(tables, r.envoyTable())
	}
	return tables
}

func (r *report) directTable() table {
	t := table{
		title:  fmt.Sprintf("Checks, %d at a time over %d connections; client and server share the machine", inFlight, connections),
		header: []string{"authorizer", "checks/s", "CPU per check", "to noop", "to ours", "p50", "p99", "p99.9", "RSS", "start", "memo hits"},
	}
	noop, ours := r.roundsOf(baseline), r.roundsOf("tollkeeper")
	for _, one := range r.direct {
		at := func(q float64) string {
			return millis(time.Duration(median(one.rounds, func(s *sample) float64 { return float64(s.latency.quantile(q)) })))
		}
		t.rows = append(t.rows, []string{
			one.rival.label,
			count(median(one.rounds, func(s *sample) float64 { return s.perSecond() })),
			micros(median(one.rounds, (*sample).cpuPerCheck)),
			times(ratio(one.rounds, noop, (*sample).cpuPerCheck)),
			times(ratio(one.rounds, ours, (*sample).cpuPerCheck)),
			at(.5), at(.99), at(.999),
			fmt.Sprintf("%.0f MB", median(one.rounds, func(s *sample) float64 { return float64(s.memory) })/1e6),
			fmt.Sprintf("%.1f s", median(one.rounds, func(s *sample) float64 { return s.start.Seconds() })),
			percent(median(one.rounds, func(s *sample) float64 { return s.memo.share() })),
		})
	}
	return t
}

// roundsOf are the rounds of a rival, nil if it did not run.
func (r *report) roundsOf(name string) []*sample {
	for _, one := range r.direct {
		if one.rival.name == name {
			return one.rounds
		}
	}
	return nil
}

func (r *report) envoyTable() table {
	t := table{
		title:  fmt.Sprintf("Requests through Envoy, %d at a time", clients),
		header: []string{"authorizer", "requests/s", "p50", "p99", "added to p50", "to noop"},
	}
	alone := r.envoy[0].rounds
	added := func(rounds []*measurement) []float64 {
		out := make([]float64, len(rounds))
		for i := range rounds {
			out[i] = float64(rounds[i].latency.quantile(.5) - alone[i].latency.quantile(.5))
		}
		return out
	}
	itself := func(f float64) float64 { return f }
	var noop []float64
	for _, s := range r.envoy {
		if s.rival != nil && s.rival.name == baseline {
			noop = added(s.rounds)
		}
	}
	for _, s := range r.envoy {
		at := func(q float64) string {
			return millis(time.Duration(median(s.rounds, func(t *measurement) float64 { return float64(t.latency.quantile(q)) })))
		}
		more, proportion := "-", "-"
		if s.rival != nil {
			more = millis(time.Duration(median(added(s.rounds), itself)))
			proportion = times(ratio(added(s.rounds), noop, itself))
		}
		t.rows = append(t.rows, []string{s.label, count(median(s.rounds, (*measurement).perSecond)), at(.5), at(.99), more, proportion})
	}
	return t
}

func (r *report) bars() []bar {
	bars := make([]bar, len(r.direct))
	for i, one := range r.direct {
		cpu := median(one.rounds, (*sample).cpuPerCheck)
		bars[i] = bar{label: one.rival.label, value: cpu, text: micros(cpu), ours: strings.HasPrefix(one.rival.name, "tollkeeper")}
	}
	return bars
}

// table has names in the first column and numbers in the others.
type table struct {
	title  string
	header []string
	rows   [][]string
}

func (t *table) text(w io.Writer) error {
	widths := make([]int, len(t.header))
	lines := append([][]string{t.header}, t.rows...)
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	b.WriteString(t.title + "\n\n")
	for _, line := range lines {
		for i, cell := range line {
			gap := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				b.WriteString(cell + gap)
			} else {
				b.WriteString("   " + gap + cell)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *table) markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s:\n\n| %s |\n|---%s|\n", t.title, strings.Join(t.header, " | "), strings.Repeat("|--:", len(t.header)-1))
	for _, row := range t.rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

func count(f float64) string        { return grouped(int64(f + .5)) }
func micros(ns float64) string      { return fmt.Sprintf("%.1f µs", ns/1e3) }
func millis(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

// percent formats a share, "-" for NaN.
func percent(f float64) string {
	if math.IsNaN(f) {
		return "-"
	}
	return fmt.Sprintf("%.2f %%", 100*f)
}

// times formats a ratio, "-" where there is none.
func times(f float64) string {
	if f == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f×", f)
}

// grouped formats a number with commas. It must not be negative.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
