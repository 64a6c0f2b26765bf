package dispenser

import (
	"context"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// report tells the ledger what was spent, and learns what changed there and what is left under that limit.
func (b *bucketLease) report(ctx context.Context, l *authz.Limit) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead {
		return nil
	}
	if err := b.flushLocked(ctx, l); err != nil { // what these calls carry is older than what we were asked to report
		return err
	}
	b.surrendered = time.Time{} // who asks for a report wants to see the units back
	if err := b.callLocked(ctx, l, 0); err != nil {
		return err
	}
	return b.flushLocked(ctx, l) // gives back units that the limit no longer grants
}

// sweep renews a lease that would run out before the next sweeps, reports what a crash would otherwise refund, and gives
// back what was not used since the last sweep.
func (b *bucketLease) sweep(ctx context.Context) error {
	if !b.used.Swap(false) {
		return b.retire(ctx)
	}
	l := b.limit.Load()
	if soon := b.d.now().Add(2 * SweepEvery); l.RefundOnCrash || !b.source.Load().Good(soon) {
		return b.report(ctx, l)
	}
	return nil
}

// giveBack returns what the node holds, because another node has nothing left.
func (b *bucketLease) giveBack(ctx context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recalled = b.d.now() // the others gave back as well: to ask them again would only send the last units around
	_ = b.returnAllLocked(ctx)
}

// returnAllLocked returns everything that the node holds, and waits until the ledger has it.
func (b *bucketLease) returnAllLocked(ctx context.Context) error {
	if r := b.returnLocked(); r != nil {
		b.queue = append(b.queue, *r)
	}
	return b.flushLocked(ctx, b.limit.Load())
}

// retire returns everything that the node holds. The lease is then dead and forgotten, unless a request used it meanwhile.
func (b *bucketLease) retire(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.flushLocked(ctx, b.limit.Load()); err != nil { // what these calls bring is given back as well
		return err
	}
	if err := b.returnAllLocked(ctx); err != nil {
		return err
	}
	b.dead = b.source.Load().Empty() && b.waiting == 0 && b.flight == nil && len(b.queue) == 0
	if b.dead {
		b.d.forget(b)
	}
	return nil
}
