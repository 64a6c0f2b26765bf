package evaluators

import (
	"context"
	"runtime"
	"time"
)

// Loading is what a loaded policy takes.
type Loading struct {
	Time time.Duration // of the processor
	Live int64         // bytes, after a garbage collection
}

// MeasureLoading loads a policy for OPA's evaluator alone, and then with a program, several times. It returns medians. A policy
// with a program can also be evaluated by OPA's evaluator, so what it takes includes that.
func MeasureLoading(ctx context.Context, p *Policy, rounds int) (topdown, compiled Loading, err error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var times, live [2][]int64
	for round := range rounds + 1 {
		for i, interpreted := range []bool{true, false} {
			l, err := loading(ctx, p, interpreted)
			if err != nil {
				return Loading{}, Loading{}, err
			}
			if round > 0 { // the first one also fills what OPA shares between policies
				times[i], live[i] = append(times[i], int64(l.Time)), append(live[i], l.Live)
			}
		}
	}
	return Loading{time.Duration(median(times[0])), median(live[0])}, Loading{time.Duration(median(times[1])), median(live[1])}, nil
}

func loading(ctx context.Context, p *Policy, interpreted bool) (Loading, error) {
	before, began := liveBytes(), processorTime()
	loaded, err := p.load(ctx, interpreted)
	l := Loading{Time: processorTime() - began, Live: liveBytes() - before}
	runtime.KeepAlive(loaded)
	return l, err
}

func liveBytes() int64 {
	runtime.GC()
	runtime.GC() // the first one only marks what sync.Pools hold
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
