package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	smallSet    = 1000 // keys in the small set, and callers of the large one
	manyCallers = 9000 // callers of the large set for a busy server
)

// rivalSpec says how to make a rival.
type rivalSpec struct {
	name, label string
	data        *dataset // of Tollkeeper; nil: another authorizer
	load        load
}

// dataset is the data and the settings of a Tollkeeper. Rivals that differ only in their load share one.
type dataset struct {
	name    string
	keys    int
	revoked int
	policy  string // more settings of the policy
	rules   string // the operator's own rules
}

// pathRules read the raw path, so that a verdict is good for one path alone.
const pathRules = `package tollkeeper.custom

deny contains {"reason": "path_not_allowed", "detail": "this path is internal"} if {
	startswith(input.attributes.request.http.path, "/internal/")
}

deny contains {"reason": "path_not_allowed", "detail": "reports are read by GET"} if {
	input.parsed_path[1] == "reports"
	input.attributes.request.http.method != "GET"
}
`

func rivalSpecs(large int) []rivalSpec {
	keys := newKeySet(max(large, smallSet))
	few, many := keys[:smallSet*keyLen], keys[:large*keyLen]
	small := &dataset{name: "small", keys: smallSet}
	full := &dataset{name: "large", keys: large, revoked: large}
	raw := &dataset{name: "raw", keys: smallSet, rules: pathRules}
	nomemo := &dataset{name: "nomemo", keys: smallSet, policy: ", memo: 0"}
	one, ids := loadOf(few, smallSet).to(onePath), loadOf(few, smallSet).to(idPaths)
	inFew, inMany := grouped(smallSet)+" keys", grouped(int64(large))+" keys and revocations"
	return []rivalSpec{
		{baseline, "noop (answers OK at once)", nil, loadOf(few, smallSet)},
		{sameAnswer, "noop with Tollkeeper's answer", nil, loadOf(few, smallSet)},
		{"opa", "OPA SDK with the same policies", nil, loadOf(few, smallSet)},
		{"tollkeeper", "Tollkeeper, " + inFew, small, loadOf(few, smallSet)},
		{"tollkeeper-large", "… " + inMany + ", as many callers", full, loadOf(many, smallSet)},
		{"tollkeeper-busy", "… and " + grouped(manyCallers) + " callers", full, loadOf(many, manyCallers)},
		{"tollkeeper-unknown", "… and only unknown keys", full, load{keys: many, forge: unknownKey, reason: "key_unknown"}},
		{"tollkeeper-garbage", "… and only mistyped keys", full, load{keys: many, forge: garbageKey, reason: "key_malformed"}},
		{"tollkeeper-nomemo", "Tollkeeper without verdict cache, " + inFew, nomemo, loadOf(few, smallSet)},
		{"tollkeeper-path", "Tollkeeper, one path", small, one},
		{"tollkeeper-ids", "Tollkeeper, another id in each path", small, ids},
		{"tollkeeper-ids-raw", "… and own rules that read the raw path", raw, ids},
		{keysAsData + "-path", "OPA as its Envoy plugin, one path", nil, one.mapped()},
		{keysAsData + "-ids", "OPA as its Envoy plugin, ids in paths", nil, ids.mapped()},
	}
}

// chosen keeps the rivals that -only names.
func chosen(all []rivalSpec, only string) ([]rivalSpec, error) {
	if only == "" {
		return all, nil
	}
	names := strings.Split(only, ",")
	for _, name := range names {
		if !slices.ContainsFunc(all, func(c rivalSpec) bool { return c.name == name }) {
			known := make([]string, len(all))
			for i, c := range all {
				known[i] = c.name
			}
			return nil, fmt.Errorf("unknown rival %q: want one of %s", name, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(c rivalSpec) bool { return !slices.Contains(names, c.name) }), nil
}

// prepare makes the rivals and starts none. It returns those that it made even with an error, so that the caller can close
// them.
func prepare(ctx context.Context, o options, dir string) ([]*rival, error) {
	list, err := chosen(rivalSpecs(o.keys), o.only)
	if err != nil {
		return nil, err
	}
	binary, err := filepath.Abs(o.binary)
	if err != nil {
		return nil, err
	}
	rivals := make([]*rival, 0, len(list))
	servers := make(map[*dataset]*tollkeeper)
	for _, c := range list {
		rv := &rival{name: c.name, label: c.label, load: c.load, authorizer: &ownServer{kind: c.name}}
		if c.data != nil {
			if _, err := os.Stat(binary); err != nil {
				return rivals, fmt.Errorf("%w: build it first, or name it with -tollkeeper", err)
			}
			if servers[c.data] == nil {
				progress("importing %s keys and %s revocations", grouped(int64(c.data.keys)), grouped(int64(c.data.revoked)))
				t, err := newTollkeeper(ctx, binary, dir, c.data, c.load.keys)
				if err != nil {
					return rivals, fmt.Errorf("%s: %w", c.name, err)
				}
				servers[c.data] = t
			}
			rv.authorizer = servers[c.data]
		}
		rivals = append(rivals, rv)
	}
	return rivals, nil
}

// sample is the result of one turn of a rival.
type sample struct {
	*measurement
	start  time.Duration // until the server was ready
	cpu    time.Duration // of the server while it was measured
	memory int64         // resident bytes of the server at the end
	memo   memo          // zero for other servers than Tollkeeper
}

func (s *sample) cpuPerCheck() float64 { return float64(s.cpu) / float64(max(1, s.calls)) }

// compare gives every rival a turn in every round. It returns the results by rival, then by round.
func compare(ctx context.Context, rivals []*rival, rounds int, s span) ([]results, error) {
	all := make([]results, len(rivals))
	for i, rv := range rivals {
		all[i] = results{rival: rv}
	}
	for round := range rounds {
		for i := range rivals {
			r := &all[(round+i)%len(rivals)]
			one, err := turn(ctx, r.rival, s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.rival.name, err)
			}
			progress("round %d of %d: %-18s %8s checks/s %8s", round+1, rounds, r.rival.name, count(one.perSecond()), micros(one.cpuPerCheck()))
			r.rounds = append(r.rounds, one)
		}
	}
	return all, nil
}

// results are the samples of one rival, by round.
type results struct {
	rival  *rival
	rounds []*sample
}

// turn starts a rival, loads and measures it, and stops it.
func turn(ctx context.Context, rv *rival, s span) (one *sample, err error) {
	syscall.Sync() // the writes of the last rival must not delay this one
	began := time.Now()
	port, pid, err := rv.start(ctx)
	started := time.Since(began)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rv.stop()) }()
	var clock []time.Duration
	t, err := checks(ctx, port, &rv.load, s, func() error {
		used, err := cpuTime(pid)
		clock = append(clock, used)
		return err
	})
	if err != nil {
		return nil, err
	}
	memory, err := residentBytes(pid)
	if err != nil {
		return nil, err
	}
	one = &sample{measurement: t, start: started, cpu: clock[1] - clock[0], memory: memory}
	if ours, ok := rv.authorizer.(*tollkeeper); ok {
		one.memo, err = ours.memo(ctx)
	}
	return one, err
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// median is the median over the rounds of one number.
func median[T any](rounds []T, of func(T) float64) float64 {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = of(r)
	}
	return medianOf(values)
}

// medianOf is the median of numbers, 0 if there are none. It sorts them.
func medianOf(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	slices.Sort(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// ratio is the median over the rounds of a number of one rival divided by that of another in the same round.
func ratio[T any](one, other []T, of func(T) float64) float64 {
	values := make([]float64, 0, len(one))
	for i := range min(len(one), len(other)) {
		if base := of(other[i]); base > 0 {
			values = append(values, of(one[i])/base)
		}
	}
	return medianOf(values)
}
