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

// contestant is how a rival is made.
type contestant struct {
	name, label string
	keys        int
	policy      string // further settings of Tollkeeper's policy
	ours        bool
}

func contestants(large int) []contestant {
	few, many := grouped(smallSet)+" keys", grouped(int64(large))+" keys"
	return []contestant{
		{name: "noop", label: "noop (answers OK at once)", keys: smallSet},
		{name: "opa", label: "OPA SDK with the same policies", keys: smallSet},
		{name: "tollkeeper", label: "Tollkeeper, " + few, keys: smallSet, ours: true},
		{name: "tollkeeper-large", label: "Tollkeeper, " + many, keys: large, ours: true},
		{name: "tollkeeper-nomemo", label: "Tollkeeper without memo, " + few, keys: smallSet, policy: ", memo: 0", ours: true},
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
	var most int
	for _, c := range list {
		most = max(most, c.keys)
	}
	keys := newKeySet(most)
	rivals := make([]*rival, 0, len(list))
	for _, c := range list {
		rv := &rival{name: c.name, label: c.label, keys: keys[:c.keys*keyLen], authorizer: &self{kind: c.name}}
		if c.ours {
			if _, err := os.Stat(binary); err != nil {
				return rivals, fmt.Errorf("%w: build it first, or name it with -tollkeeper", err)
			}
			progress("%s: importing %s keys", c.name, grouped(int64(c.keys)))
			t, err := newTollkeeper(ctx, binary, dir, c.name, rv.keys, c.policy)
			if err != nil {
				return rivals, fmt.Errorf("%s: %w", c.name, err)
			}
			rv.authorizer = t
		}
		rivals = append(rivals, rv)
	}
	return rivals, nil
}

// sample is what one turn of one rival came to.
type sample struct {
	*taking
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
	port, pid, err := rv.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rv.stop()) }()
	var clock []time.Duration
	t, err := checks(ctx, port, rv.keys, s, func() error {
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
	return &sample{taking: t, cpu: clock[1] - clock[0], memory: memory}, nil
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
