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
	stepsPerLook = 256  // about 0.2 ms
	freeSteps    = 1024 // ordinary evaluations never sleep: the shipped policies take fewer than 200 steps
	nap          = 20 * time.Microsecond
)

// Yielder ends an evaluation when its context ends, and makes a long evaluation sleep now and then. It is a topdown.Cancel: OPA's
// evaluator asks it between steps, on one goroutine.
type Yielder struct {
	ctx   context.Context
	steps uint
	ended bool
}

// New returns the yielder of an evaluation under ctx.
func New(ctx context.Context) *Yielder { return &Yielder{ctx: ctx} }

// Cancel does nothing: only the context ends an evaluation.
func (y *Yielder) Cancel() {}

// Cancelled reports whether the evaluation must end.
func (y *Yielder) Cancelled() bool {
	y.steps++
	if y.steps%stepsPerLook == 0 {
		if y.steps > freeSteps {
			time.Sleep(nap)
		}
		y.ended = y.ctx.Err() != nil
	}
	return y.ended
}
