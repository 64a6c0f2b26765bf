package evaluators

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
)

// Options say how long to measure.
type Options struct {
	Rounds int           // how many turns each evaluator gets
	Turn   time.Duration // how long a turn lasts at least; 0: one decision
}

// Cost is what a decision takes.
type Cost struct {
	Nanos  float64 // of processor time
	Allocs float64
}

// Result is what a row takes on both evaluators.
type Result struct {
	Name              string
	Topdown, Compiled Cost
	Ratio             float64 // of the program's time to that of OPA's evaluator
	// Worst is the largest ratio among the cases. WorstName names that case, or the row if it has only one.
	Worst     float64
	WorstName string
}

// percent is how the server sets the garbage collector while little memory is in use.
const percent = 1000

// Measure measures rows on one processor. The evaluators take turns, so that other work of the machine falls on both. The error
// names rows that could not be measured, because a policy does not load or the verdicts differ. They have no result.
func Measure(ctx context.Context, rows []Row, o Options) ([]Result, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(percent))
	results := make([]Result, 0, len(rows))
	var failed []error
	var p pair
	for i := range rows {
		r, err := p.measure(ctx, &rows[i], o)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", rows[i].Name, err))
		} else {
			results = append(results, *r)
		}
	}
	return results, errors.Join(failed...)
}

// measure measures the cases of a row.
func (p *pair) measure(ctx context.Context, row *Row, o Options) (*Result, error) {
	r, n := &Result{Name: row.Name}, len(row.Cases)
	o.Turn /= time.Duration(n)
	for i := range row.Cases {
		c := &row.Cases[i]
		if err := p.load(ctx, c.Policy); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		if err := p.agree(ctx, c); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		topdown, compiled, ratio := p.rounds(ctx, c, o)
		if ratio > r.Worst {
			r.Worst, r.WorstName = ratio, c.Name
		}
		r.Topdown.add(topdown)
		r.Compiled.add(compiled)
		r.Ratio += math.Log(ratio)
	}
	if n > 1 {
		r.Name = fmt.Sprintf("%s (mean of %d; worst: %s, %.2g×)", r.Name, n, r.WorstName, r.Worst)
	}
	r.Topdown, r.Compiled, r.Ratio = r.Topdown.mean(n), r.Compiled.mean(n), math.Exp(r.Ratio/float64(n))
	return r, nil
}

// add adds the logarithms of a cost, for mean. Zero allocations count as a tenth.
func (c *Cost) add(one Cost) {
	c.Nanos += math.Log(one.Nanos)
	c.Allocs += math.Log(max(one.Allocs, .1))
}

// mean returns the geometric mean of n costs that were added.
func (c *Cost) mean(n int) Cost {
	return Cost{math.Exp(c.Nanos / float64(n)), math.Exp(c.Allocs / float64(n))}
}

// rounds gives turns to both evaluators, after one that is not counted, and returns medians.
func (p *pair) rounds(ctx context.Context, c *Case, o Options) (topdown, compiled Cost, ratio float64) {
	turn(ctx, p.topdown, c, o.Turn/4)
	turn(ctx, p.compiled, c, o.Turn/4)
	ours, theirs := make([]Cost, o.Rounds), make([]Cost, o.Rounds)
	ratios := make([]float64, o.Rounds)
	for i := range o.Rounds {
		theirs[i], ours[i] = turn(ctx, p.topdown, c, o.Turn), turn(ctx, p.compiled, c, o.Turn)
		ratios[i] = ours[i].Nanos / theirs[i].Nanos
	}
	return middle(theirs), middle(ours), median(ratios)
}

// turn measures as many decisions as the turn has time for.
func turn(ctx context.Context, p *policy.Policy, c *Case, length time.Duration) Cost {
	if length >= time.Millisecond { // a shorter turn measures nothing, and each collection takes milliseconds
		runtime.GC() // the garbage of the other evaluator is not ours
	}
	n, before, began := 0, mallocs(), processorTime()
	for batch := 1; ; batch *= 2 {
		for range batch {
			_, _ = p.Decide(ctx, c.Requests[n%len(c.Requests)], c.Facts, nil)
			n++
		}
		if used := processorTime() - began; used >= length {
			return Cost{float64(max(used, 1)) / float64(n), float64(mallocs()-before) / float64(n)}
		}
	}
}

// processorTime is what the process has used so far. Other work of the machine does not count.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it has no reason to
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// middle is the cost with median time, and the median of the allocations.
func middle(costs []Cost) Cost {
	nanos, allocs := make([]float64, len(costs)), make([]float64, len(costs))
	for i, c := range costs {
		nanos[i], allocs[i] = c.Nanos, c.Allocs
	}
	return Cost{median(nanos), median(allocs)}
}

// median sorts the values.
func median[T cmp.Ordered](of []T) T {
	slices.Sort(of)
	return of[len(of)/2]
}
