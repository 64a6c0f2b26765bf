package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// report holds all measurements.
type report struct {
	date    time.Time
	machine string
	options options
	direct  *comparison
	envoy   []*setup
}

// publish prints the report and writes the requested files.
func (r *report) publish() error {
	fmt.Printf("\n%s\n%s\n\n", r.heading(), r.machine)
	var err error
	for _, t := range r.tables() {
		err = errors.Join(err, t.text(os.Stdout))
	}
	for _, note := range r.notes() {
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
			all = append(all, fmt.Errorf("%s denied %d, and allowed %d in that turn, while the machine stood still for up to %v: %w",
				label, t.denied, t.calls, t.stall.Round(time.Millisecond), t.denial))
		}
	}
	for _, one := range r.direct.rivals {
		for _, s := range one.rounds {
			note(one.rival.name, s.measurement)
		}
	}
	for _, v := range r.direct.visits {
		note("a Tollkeeper that all callers visited", v.measurement)
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
	for _, note := range r.notes() {
		_, failed := fmt.Fprintf(w, "\n%s\n", note)
		err = errors.Join(err, failed)
	}
	return err
}

// notes explain the tables.
func (r *report) notes() []string {
	var trial, ids, aged bool
	var log float64
	for _, one := range r.direct.rivals {
		t := one.rival.load.targets
		ids = ids || len(t) > 0 && t[0].shape.length > 0
		trial = trial || one.rival.trial != ""
		aged = aged || one.rival.aged && one.rival.load.cold
		log = max(log, median(one.rounds, func(s *sample) float64 { return s.perCheck(float64(s.logged)) }))
	}
	notes := []string{fmt.Sprintf("%d checks at a time over %d connections; client and server share the machine.", inFlight, connCount)}
	if trial {
		notes = append(notes, fmt.Sprintf("Written: what the server wrote to disk (write_bytes in /proc/PID/io: whole pages, each time that one is changed). "+
			"Tollkeeper's decision log is left out: up to %s a check.", size(log)))
	}
	if aged && r.options.seconds >= 1 {
		notes = append(notes, fmt.Sprintf("Where callers come as they are drawn, a server that has just started is measured for %v s, before it puts away "+
			"what it holds for them. One that was visited is measured for %v and pays for that as well.", r.options.seconds, sweep))
	}
	if ids {
		notes = append(notes, idPathsNote)
	}
	return notes
}

// bars are those of the trials, or of the other rivals if no trial was run.
func (r *report) bars() []bar {
	var bars []bar
	for _, t := range append(slices.Clone(trials), trial{label: "Requests of five paths"}) {
		list := r.of(t.name)
		if len(list) == 0 || t.name == "" && len(bars) > 0 {
			continue
		}
		bars = append(bars, bar{label: t.label, heading: true})
		for _, one := range list {
			cpu, text := median(one.rounds, (*sample).cpuPerCheck), ""
			if f := ratio(one.rounds, r.noopOf(one.rival), (*sample).cpuPerCheck); f != 0 {
				text = ", " + times(f)
			}
			bars = append(bars, bar{label: one.rival.label, value: cpu, text: micros(cpu) + text, ours: strings.HasPrefix(one.rival.name, "tollkeeper")})
		}
	}
	return bars
}
