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

// smallSet is how many keys the small set has.
const smallSet = 1000

// A large set has this many callers, unless as many as the small set are wanted.
const manyCallers = 9000

// contestant is how a rival is made.
type contestant struct {
	name, label string
	world       *world // what Tollkeeper knows; nil: it is another authorizer
	load        load
}

// world is what a Tollkeeper knows, and how it is set up. Rivals that differ in nothing but their load share one.
type world struct {
	name    string
	keys    int
	revoked int
	policy  string // further settings of the policy
}

func contestants(large int) []contestant {
	keys := newKeySet(max(large, smallSet))
	few, many := keys[:smallSet*keyLen], keys[:large*keyLen]
	small := &world{name: "small", keys: smallSet}
	full := &world{name: "large", keys: large, revoked: large}
	nomemo := &world{name: "nomemo", keys: smallSet, policy: ", memo: 0"}
	inFew, inMany := grouped(smallSet)+" keys", grouped(int64(large))+" keys and revocations"
	return []contestant{
		{baseline, "noop (answers OK at once)", nil, loadOf(few, smallSet)},
		{sameAnswer, "noop with Tollkeeper's answer", nil, loadOf(few, smallSet)},
		{"opa", "OPA SDK with the same policies", nil, loadOf(few, smallSet)},
		{"tollkeeper", "Tollkeeper, " + inFew, small, loadOf(few, smallSet)},
		{"tollkeeper-large", "… " + inMany + ", as many callers", full, loadOf(many, smallSet)},
		{"tollkeeper-busy", "… and " + grouped(manyCallers) + " callers", full, loadOf(many, manyCallers)},
		{"tollkeeper-unknown", "… and only keys that nobody has", full, load{keys: many, forge: unknownKey, reason: "key_unknown"}},
		{"tollkeeper-garbage", "… and only keys that are mistyped", full, load{keys: many, forge: garbageKey, reason: "key_malformed"}},
		{"tollkeeper-nomemo", "Tollkeeper without memo, " + inFew, nomemo, loadOf(few, smallSet)},
	}
}

// chosen keeps those that -only names.
func chosen(all []contestant, only string) ([]contestant, error) {
	if only == "" {
		return all, nil
	}
	names := strings.Split(only, ",")
	for _, name := range names {
		if !slices.ContainsFunc(all, func(c contestant) bool { return c.name == name }) {
			known := make([]string, len(all))
			for i, c := range all {
				known[i] = c.name
			}
			return nil, fmt.Errorf("there is no rival %q, but %s", name, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(c contestant) bool { return !slices.Contains(names, c.name) }), nil
}

// prepare makes the rivals, none of which runs yet. Those that it made are returned even with an error.
func prepare(ctx context.Context, o options, dir string) ([]*rival, error) {
	list, err := chosen(contestants(o.keys), o.only)
	if err != nil {
		return nil, err
	}
	binary, err := filepath.Abs(o.binary)
	if err != nil {
		return nil, err
	}
	rivals := make([]*rival, 0, len(list))
	worlds := make(map[*world]*tollkeeper)
	for _, c := range list {
		rv := &rival{name: c.name, label: c.label, load: c.load, authorizer: &self{kind: c.name}}
		if c.world != nil {
			if _, err := os.Stat(binary); err != nil {
				return rivals, fmt.Errorf("%w: build it first, or name it with -tollkeeper", err)
			}
			if worlds[c.world] == nil {
				progress("importing %s keys and %s revocations", grouped(int64(c.world.keys)), grouped(int64(c.world.revoked)))
				t, err := newTollkeeper(ctx, binary, dir, c.world, c.load.keys)
				if err != nil {
					return rivals, fmt.Errorf("%s: %w", c.name, err)
				}
				worlds[c.world] = t
			}
			rv.authorizer = worlds[c.world]
		}
		rivals = append(rivals, rv)
	}
	return rivals, nil
}

// sample is what one turn of one rival came to.
type sample struct {
	*taking
	start  time.Duration // until it answered
	cpu    time.Duration // of the server, in all
	memory int64         // of the server, at the end, in bytes
}

func (s *sample) cpuPerCheck() float64 { return float64(s.cpu) / float64(max(1, s.calls)) }

// compare gives every rival its turn, in every round. What it returns is by rival, then by round.
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

// results are those of one rival, by round.
type results struct {
	rival  *rival
	rounds []*sample
}

// turn starts a rival, loads it and stops it.
func turn(ctx context.Context, rv *rival, s span) (one *sample, err error) {
	syscall.Sync() // what one rival left for the disk to do must not hold up the next one
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
	return &sample{taking: t, start: started, cpu: clock[1] - clock[0], memory: memory}, nil
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// median is the middle value of one number of every round.
func median[T any](rounds []T, of func(T) float64) float64 {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = of(r)
	}
	return middleOf(values)
}

// middleOf is the median of numbers, 0 of none. It sorts them.
func middleOf(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	slices.Sort(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// ratio is the median over the rounds of how many times a number of one is that of another in the same round.
func ratio[T any](one, other []T, of func(T) float64) float64 {
	values := make([]float64, 0, len(one))
	for i := range min(len(one), len(other)) {
		if base := of(other[i]); base > 0 {
			values = append(values, of(one[i])/base)
		}
	}
	return middleOf(values)
}
