package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// tables are all that the report has, the trials first.
func (r *report) tables() []table {
	var tables []table
	for _, t := range trials {
		if list := r.of(t.name); len(list) > 0 {
			tables = append(tables, r.trialTable(t, list))
		}
	}
	if len(r.direct.visits) > 0 {
		tables = append(tables, r.visitTable())
	}
	if list := r.of(""); len(list) > 0 {
		tables = append(tables, r.settingTable(list))
	}
	if t := r.roundTable(); len(t.rows) > 0 {
		tables = append(tables, t)
	}
	if len(r.envoy) > 0 {
		tables = append(tables, r.envoyTable())
	}
	return tables
}

// of are the results of the rivals in a trial, or of those in none.
func (r *report) of(trial string) []results {
	return slices.DeleteFunc(slices.Clone(r.direct.rivals), func(one results) bool { return one.rival.trial != trial })
}

// roundsOf are the rounds of a rival, nil if it did not run.
func (r *report) roundsOf(name string) []*sample {
	for _, one := range r.direct.rivals {
		if one.rival.name == name {
			return one.rounds
		}
	}
	return nil
}

// noopOf are the rounds of the baseline under the load of a rival or, if it did not run, of the baseline of all.
func (r *report) noopOf(rv *rival) []*sample {
	if own := r.roundsOf(baseline + "-" + rv.trial); own != nil {
		return own
	}
	return r.roundsOf(baseline)
}

// The columns that tables share.
func speed(rounds []*sample) string {
	return count(median(rounds, func(s *sample) float64 { return s.perSecond() }))
}

func quantile(rounds []*sample, q float64) string {
	return millis(time.Duration(median(rounds, func(s *sample) float64 { return float64(s.latency.quantile(q)) })))
}

func resident(rounds []*sample) string {
	return fmt.Sprintf("%.0f MB", median(rounds, func(s *sample) float64 { return float64(s.memory) })/1e6)
}

func memoShare(rounds []*sample) string {
	return percent(median(rounds, func(s *sample) float64 { return s.memo.share() }))
}

func (r *report) trialTable(t trial, list []results) table {
	out := table{
		title:  t.label,
		header: []string{"authorizer", "checks/s", "CPU per check", "to noop", "p50", "p99", "to noop", "p99.9", "written per check", "RSS", "memo hits"},
	}
	p99 := func(s *sample) float64 { return float64(s.latency.quantile(.99)) }
	for _, one := range list {
		noop := r.noopOf(one.rival)
		out.rows = append(out.rows, []string{
			one.rival.label,
			speed(one.rounds),
			micros(median(one.rounds, (*sample).cpuPerCheck)),
			times(ratio(one.rounds, noop, (*sample).cpuPerCheck)),
			quantile(one.rounds, .5), quantile(one.rounds, .99),
			times(ratio(one.rounds, noop, p99)),
			quantile(one.rounds, .999),
			size(median(one.rounds, (*sample).writtenPerCheck)),
			resident(one.rounds), memoShare(one.rounds),
		})
	}
	return out
}

func (r *report) settingTable(list []results) table {
	t := table{
		title:  "Requests of five paths: other data and settings",
		header: []string{"authorizer", "checks/s", "CPU per check", "to noop", "to ours", "p50", "p99", "p99.9", "RSS", "start", "memo hits"},
	}
	ours := r.roundsOf("tollkeeper")
	for _, one := range list {
		t.rows = append(t.rows, []string{
			one.rival.label,
			speed(one.rounds),
			micros(median(one.rounds, (*sample).cpuPerCheck)),
			times(ratio(one.rounds, r.noopOf(one.rival), (*sample).cpuPerCheck)),
			times(ratio(one.rounds, ours, (*sample).cpuPerCheck)),
			quantile(one.rounds, .5), quantile(one.rounds, .99), quantile(one.rounds, .999),
			resident(one.rounds),
			fmt.Sprintf("%.1f s", median(one.rounds, func(s *sample) float64 { return s.start.Seconds() })),
			memoShare(one.rounds),
		})
	}
	return t
}

// visitTable says what a caller costs who comes once and stays away, beside what the disk alone needs.
func (r *report) visitTable() table {
	v := visits(r.direct.visits)
	rested := func(text string) string {
		if slices.ContainsFunc(v, func(v *visit) bool { return v.after == 0 }) {
			return "-"
		}
		return text
	}
	came := func(v *visit) int { return v.callers }
	first, later := v.each(func(v *visit) usage { return v.first }, came), v.each(func(v *visit) usage { return v.later }, came)
	alone := v.each(func(v *visit) usage { return v.aloneUsage }, func(v *visit) int { return v.alone.calls })
	disk := func(v *visit) *histogram { return &v.sync }
	waits := func(of func(*visit) *histogram) []string {
		return []string{v.quantile(of, .5), v.quantile(of, .99), times(medianOf(ratiosOf(v, p99(of), p99(disk))))}
	}
	return table{
		title:  fmt.Sprintf("A visit: each of %s callers comes once, to a server that has just started", grouped(int64(v[0].callers))),
		header: []string{"for each caller", "CPU", "written", "live memory", "p50", "p99", "p99 to the disk's"},
		rows: [][]string{
			append([]string{"the first check", micros(first.cpu), size(first.written), signed(v.memory(func(v *visit) int64 { return v.during }))},
				waits(func(v *visit) *histogram { return &v.latency })...),
			{
				"later, until the server is at rest", rested(micros(later.cpu)), rested(size(later.written)),
				rested(signed(v.memory(func(v *visit) int64 { return v.after }))), "", "", "",
			},
			{"both", rested(micros(first.cpu + later.cpu)), rested(size(first.written + later.written)), "", "", "", ""},
			append([]string{"the first check, one at a time", micros(alone.cpu), size(alone.written), "-"},
				waits(func(v *visit) *histogram { return &v.alone.latency })...),
			append([]string{"the disk alone: a page is appended and synced", "", "", ""}, waits(disk)...),
		},
	}
}

// visits are those of all rounds.
type visits []*visit

// perCaller is what a caller costs: processor time in nanoseconds, and bytes.
type perCaller struct{ cpu, written float64 }

func (v visits) each(of func(*visit) usage, callers func(*visit) int) perCaller {
	share := func(v *visit, n int64) float64 { return float64(max(0, n)) / float64(max(1, callers(v))) } // see writtenPerCheck
	return perCaller{
		median(v, func(v *visit) float64 { return share(v, int64(of(v).cpu)) }),
		median(v, func(v *visit) float64 { return share(v, of(v).written) }),
	}
}

// memory is what a caller adds to the live memory before the visit.
func (v visits) memory(at func(*visit) int64) float64 {
	return median(v, func(v *visit) float64 { return float64(at(v)-v.before) / float64(v.callers) })
}

func (v visits) quantile(of func(*visit) *histogram, q float64) string {
	return millis(time.Duration(median(v, func(v *visit) float64 { return float64(of(v).quantile(q)) })))
}

func p99(of func(*visit) *histogram) func(*visit) float64 {
	return func(v *visit) float64 { return float64(of(v).quantile(.99)) }
}

// roundTable shows how the ratios move from round to round.
func (r *report) roundTable() table {
	t := table{title: "CPU per check to noop, by round", header: []string{"rival"}}
	for i := range r.options.rounds {
		t.header = append(t.header, fmt.Sprintf("round %d", i+1))
	}
	t.header = append(t.header, "largest to smallest")
	sorted := slices.Clone(r.direct.rivals)
	slices.SortStableFunc(sorted, func(a, b results) int { return cmp.Compare(placeOf(a.rival.trial), placeOf(b.rival.trial)) })
	for _, one := range sorted {
		values := ratios(one.rounds, r.noopOf(one.rival), (*sample).cpuPerCheck)
		if len(values) != r.options.rounds || one.rival.kind == baseline {
			continue
		}
		row := []string{one.rival.name}
		for _, v := range values {
			row = append(row, times(v))
		}
		t.rows = append(t.rows, append(row, times(slices.Max(values)/slices.Min(values))))
	}
	return t
}

// placeOf is the place of a trial in the report. Rivals in no trial come last.
func placeOf(name string) int {
	if i := slices.IndexFunc(trials, func(t trial) bool { return t.name == name }); i >= 0 {
		return i
	}
	return len(trials)
}

func identity(f float64) float64 { return f }

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
	var noop []float64
	for _, s := range r.envoy {
		if s.name == baseline {
			noop = added(s.rounds)
		}
	}
	for _, s := range r.envoy {
		at := func(q float64) string {
			return millis(time.Duration(median(s.rounds, func(t *measurement) float64 { return float64(t.latency.quantile(q)) })))
		}
		more, proportion := "-", "-"
		if s.authorizer != nil {
			more = millis(time.Duration(median(added(s.rounds), identity)))
			proportion = times(ratio(added(s.rounds), noop, identity))
		}
		t.rows = append(t.rows, []string{s.label, count(median(s.rounds, (*measurement).perSecond)), at(.5), at(.99), more, proportion})
	}
	return t
}
