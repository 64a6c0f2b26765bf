package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestStatistics_MedianAndRatio(t *testing.T) {
	if m := medianOf([]float64{5, 1, 3}); m != 3 {
		t.Errorf("median of 5, 1, 3 is %v", m)
	}
	if m := medianOf([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("median of 4, 1, 3, 2 is %v", m)
	}
	if r := ratio([]float64{2, 30, 4}, []float64{1, 10, 0}, identity); r != 2.5 {
		t.Errorf("ratio is %v, want the middle of 2 and 3", r)
	}
	if r := ratio([]float64{2}, nil, identity); r != 0 || times(r) != "-" {
		t.Errorf("ratio to nothing is %v", r)
	}
}

func TestTable_Sizes(t *testing.T) {
	for bytes, want := range map[float64]string{0: "0 B", 999: "999 B", 24_000: "24.0 kB", 1.5e6: "1.5 MB", -2000: "-2.0 kB"} {
		if got := signed(bytes); got != want {
			t.Errorf("%v is %s, want %s", bytes, got, want)
		}
	}
}

func TestHeap_Live(t *testing.T) {
	if live := (heap{goal: 300e6, percent: 200}).live(); live != 100e6 {
		t.Errorf("live memory with a goal of three times as much is %d", live)
	}
}

// sampleOf has checks of a millisecond, in a second.
func sampleOf(calls int, cpu time.Duration) *sample {
	s := &sample{
		measurement: &measurement{calls: calls, took: time.Second}, cpu: cpu, memory: 25_000_000,
		written: int64(1000 * calls), logged: int64(400 * calls), memo: memo{hits: 3, others: 1},
	}
	s.latency.add(time.Millisecond)
	return s
}

func histogramOf(all ...time.Duration) (h histogram) {
	for _, d := range all {
		h.add(d)
	}
	return h
}

func report2x2() *report {
	rounds := func(all ...*sample) []*sample { return all }
	noop := func(cpu time.Duration) []*sample { return rounds(sampleOf(40_000, cpu), sampleOf(20_000, cpu)) }
	ours := func() []*sample {
		return rounds(sampleOf(20_000, time.Second), sampleOf(20_000, 1500*time.Millisecond))
	}
	return &report{
		date: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), machine: "a machine", options: options{rounds: 2, seconds: 1},
		direct: &comparison{
			rivals: []results{
				{&rival{name: "noop-path", label: "noop", kind: baseline, trial: "path"}, noop(time.Second)},
				{&rival{name: "tollkeeper-path", label: "Tollkeeper", trial: "path"}, ours()},
				{&rival{name: "tollkeeper-street", label: "Tollkeeper", trial: "street"}, ours()},
				{&rival{name: "noop", label: "noop", kind: baseline}, noop(2 * time.Second)},
				{&rival{name: "tollkeeper", label: "Tollkeeper"}, ours()},
			},
			visits: []*visit{{
				callers: 1000, measurement: &measurement{latency: histogramOf(2 * time.Millisecond)}, first: usage{cpu: time.Second, written: 24_000_000}, later: usage{cpu: time.Second / 2, written: 8_000_000},
				before: 50_000_000, during: 53_000_000, after: 51_000_000, sync: histogramOf(time.Millisecond),
				alone: &measurement{calls: 100, latency: histogramOf(3 * time.Millisecond)}, aloneUsage: usage{cpu: 50 * time.Millisecond, written: 4_000_000},
			}},
		},
	}
}

// TestReport_Tables also compares the order of the tables, and the ratios by round.
func TestReport_Tables(t *testing.T) {
	r := report2x2()
	var text, markdown bytes.Buffer
	for _, one := range r.tables() {
		if err := one.text(&text); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.markdown(&markdown); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"noop           30,000         37.5 µs     1.00×   1.00 ms   1.00 ms     1.00×   1.00 ms              1.0 kB   25 MB     75.00 %\n",
		"Tollkeeper     20,000         62.5 µs     1.75×   1.00 ms", "Tollkeeper     20,000         62.5 µs     0.88×   1.00 ms",
		"the first check                                 1000.0 µs   24.0 kB        3.0 kB   2.00 ms   2.00 ms               2.00×\n",
		"later, until the server is at rest               500.0 µs    8.0 kB        1.0 kB", "both                                            1500.0 µs   32.0 kB",
		"the first check, one at a time                   500.0 µs   40.0 kB             -   3.01 ms   3.01 ms               3.00×\n",
		"a page is appended and synced                                       1.00 ms   1.00 ms",
		"tollkeeper-path       2.00×     1.50×                 1.33×\n", "tollkeeper            1.00×     0.75×                 1.33×\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no line %q in\n%s", want, &text)
		}
	}
	if want := "| Tollkeeper | 20,000 | 62.5 µs | 1.75× | 1.00 ms |"; !strings.Contains(markdown.String(), want) {
		t.Errorf("no row %q in\n%s", want, &markdown)
	}
	if strings.Contains(text.String(), "noop-path") {
		t.Error("the ratio of noop to itself is listed by round")
	}
	inOrder(t, text.String(), trials[0].label, trials[1].label, "A visit", "Requests of five paths", "by round")
	inOrder(t, markdown.String(), trials[0].label, trials[1].label)
}

func TestReport_Chart(t *testing.T) {
	var svg bytes.Buffer
	if err := drawBars(&svg, "CPU & more", report2x2().bars()); err != nil {
		t.Fatal(err)
	}
	inOrder(t, svg.String(), trials[0].label, "62.5 µs", trials[1].label, "62.5 µs, 1.75×")
	for dec := xml.NewDecoder(&svg); ; {
		_, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func inOrder(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		_, after, found := strings.Cut(text, part)
		if !found {
			t.Errorf("%q is missing, or before its predecessor", part)
			return
		}
		text = after
	}
}
