// Package yielder interrupts a long evaluation of Rego, so that other requests can use the processor.
//
// Go interrupts a busy goroutine only after 10 ms. While all processors are busy, it does not read from the network earlier. So a
// long evaluation sleeps now and then. Yielding (runtime.Gosched) is not enough: if no goroutine is ready to run, the evaluation
// continues at once, and new requests are not read. authz/decisions/007 says what this gains.
package yielder

import (
	"context"
	"time"
)

const (
	stepsPerNap = 256  // about 0.2 ms
	freeSteps   = 1024 // ordinary evaluations never sleep: the shipped policies take fewer than 200 steps
	nap         = 20 * time.Microsecond

	// A compiled program asks once in 16 steps, which usually takes as long as a step of OPA's evaluator. But one of its steps may
	// search a long text, and OPA's evaluator would ask after each. So the context, which costs about 0.1 µs, is asked more often.
	stepsPerLookOfOPA     = 256
	stepsPerLookOfProgram = 8
)

// Yielder ends an evaluation when its context ends, and makes a long evaluation sleep now and then. It is a topdown.Cancel, which an
// evaluator asks between steps, on one goroutine.
type Yielder struct {
	ctx          context.Context
	steps        uint
	stepsPerLook uint // a power of two
	ended        bool
}

// ForOPA returns the yielder of an evaluation by OPA's evaluator under ctx.
func ForOPA(ctx context.Context) *Yielder { return &Yielder{ctx: ctx, stepsPerLook: stepsPerLookOfOPA} }

// ForProgram returns the yielder of an evaluation by a compiled program under ctx.
func ForProgram(ctx context.Context) *Yielder {
	return &Yielder{ctx: ctx, stepsPerLook: stepsPerLookOfProgram}
}

// Cancel does nothing: only the context ends an evaluation.
func (y *Yielder) Cancel() {}

// Cancelled reports whether the evaluation must end.
func (y *Yielder) Cancelled() bool {
	y.steps++
	if y.steps&(y.stepsPerLook-1) == 0 {
		if y.steps > freeSteps && y.steps%stepsPerNap == 0 {
			time.Sleep(nap)
		}
		y.ended = y.ctx.Err() != nil
	}
	return y.ended
}
