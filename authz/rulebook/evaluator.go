package rulebook

import (
	"sync"

	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
)

// distrusted are the revisions whose compiled program was wrong once. One that is loaded again, as after a change that was taken back,
// has the same program.
type distrusted struct {
	mu        sync.Mutex
	revisions map[string]bool
}

func (d *distrusted) add(revision string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.revisions == nil {
		d.revisions = make(map[string]bool)
	}
	d.revisions[revision] = true
}

// apply lets OPA's evaluator decide if the policy's revision is distrusted.
func (d *distrusted) apply(p *policy.Policy) {
	d.mu.Lock()
	ok := d.revisions[p.Revision()]
	d.mu.Unlock()
	if ok {
		p.Distrust()
	}
}

// rechecked counts the repetition of a decision, and logs a difference.
func (b *Book) rechecked(result policy.RecheckResult, d *policy.Difference) {
	b.o.Metrics.Rechecked(string(result))
	if d == nil {
		return
	}
	b.o.Log.Error("the compiled program and OPA's evaluator disagree: the request is denied, and OPA's evaluator decides from now on",
		"revision", d.Revision, "query", d.Query, "compiled", d.Program, "opa", d.OPA)
	b.distrusted.add(d.Revision)
	if now := b.inForce.Load(); now != nil { // it may be another policy of the same revision
		b.distrusted.apply(now.policy)
	}
}

// Evaluator says what decides. It returns false before Start.
func (b *Book) Evaluator() (e policy.Evaluator, ok bool) {
	if now := b.inForce.Load(); now != nil {
		return now.policy.Evaluator(), true
	}
	return e, false
}
