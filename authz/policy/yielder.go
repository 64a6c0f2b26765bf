package policy

import (
	"context"
	"time"

	"github.com/open-policy-agent/opa/v1/topdown"
)

// turn is one evaluation's turn on a processor. The evaluator asks it between steps whether to go on.
//
// Go takes a processor from a busy goroutine only after 10 ms, and looks at the network no sooner when all of them are
// busy. Hence a long evaluation rests by itself now and then. It has to sleep: one that only yields is put back at once
// where nothing else is known to wait, and requests wait unread. Evaluations of ordinary length never rest.
type yielder struct {
	ctx   context.Context
	steps uint // of the evaluation's own goroutine, the only one that asks
	over  bool
}

const (
	stepsPerLook = 256  // some 0.2 ms
	stepsInPeace = 1024 // the shipped policies take fewer than 200
	rest         = 20 * time.Microsecond
)

var _ topdown.Cancel = (*yielder)(nil)

// Cancel does nothing: an evaluation ends with its context.
func (t *yielder) Cancel() {}

// Cancelled reports whether the evaluation has to end.
func (t *yielder) Cancelled() bool {
	t.steps++
	if t.steps%stepsPerLook == 0 {
		if t.steps > stepsInPeace {
			time.Sleep(rest)
		}
		t.over = t.ctx.Err() != nil
	}
	return t.over
}
