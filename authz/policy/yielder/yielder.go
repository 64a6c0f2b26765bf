// Package yielder lets a long evaluation of Rego give other requests a turn on the processor.
//
// Go takes a processor from a busy goroutine only after 10 ms, and while all of them are busy it looks at the network no
// sooner. So a long evaluation sleeps now and then. Yielding (runtime.Gosched) is not enough: if nothing else is known
// to wait, the evaluation runs on at once and requests wait unread. What it buys is in authz/decisions/007.
package yielder

import (
	"context"
	"time"
)

const (
	stepsPerLook = 256  // some 0.2 ms
	freeSteps    = 1024 // an evaluation of ordinary length never sleeps: the shipped policies take fewer than 200
	nap          = 20 * time.Microsecond
)

// Yielder ends one evaluation with its context, and makes a long one sleep now and then. It is a topdown.Cancel: OPA's
// evaluator asks it between steps, on one goroutine.
type Yielder struct {
	ctx   context.Context
	steps uint
	ended bool
}

// New returns the yielder of an evaluation under ctx.
func New(ctx context.Context) *Yielder { return &Yielder{ctx: ctx} }

// Cancel does nothing: an evaluation ends with its context.
func (y *Yielder) Cancel() {}

// Cancelled reports whether the evaluation has to end.
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
