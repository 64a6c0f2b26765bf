package dispenser

import (
	"context"
	"math"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// attend waits until the node has a session. Without one it serves nothing: another node may have been given what it held.
func (d *Dispenser) attend(ctx context.Context, now time.Time) error {
	if d.session.Good(now) {
		return nil
	}
	d.mu.Lock()
	f := d.renewing
	if f == nil {
		f = &flight{done: make(chan struct{})}
		d.renewing = f
		d.goCall(func(ctx context.Context) {
			f.err = d.renew(ctx)
			d.mu.Lock()
			d.renewing = nil
			d.mu.Unlock()
			close(f.done)
		})
	}
	d.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// renew begins the node's session or has it run longer, and takes over the view of the members.
func (d *Dispenser) renew(ctx context.Context) error {
	asked, view, session := d.now(), d.views.Load().Number, d.session.Number()
	s, err := d.ledger.Renew(ctx, d.node, quota.Standing{
		Applied: d.views.Load().Number, Restated: d.restated.Load(), Replaces: d.replaces,
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.views.Store(d.views.Load().learn(s.View, d.now().UnixNano())) // before the session: a node without one uses no share
	if s.Number >= d.session.Number() {                             // of two calls at once, the earlier may be answered later
		d.session.Renew(s.Number, asked, s.Term)
	}
	if s.Number != session || s.View.Number != view { // what fails then waits for the next sweep
		select {
		case d.begun <- struct{}{}:
		default: // the sweep knows
		}
	}
	return nil
}

// Replace says that this node runs in the place of another one, which is dead. It must be called before anything is asked.
func (d *Dispenser) Replace(dead quota.NodeID) { d.replaces = dead }

// restate tells the ledger all that the node has of every holder, once in each session: the ledger may have lost it. Until all nodes
// have done so it may grant nothing. It returns false if a call fails. What the ledger refuses again and again, because its record is
// damaged, holds up nobody: it cannot grant from that record either.
func (d *Dispenser) restate(ctx context.Context) bool {
	number := d.session.Number()
	if d.restated.Load() == number {
		return true
	}
	var untold []*holder
	for range 1 + maxRefused {
		untold = d.untold(number)
		if len(untold) == 0 {
			break
		}
		b := batch{d: d, ctx: ctx}
		landed := true
		for _, h := range untold {
			landed = h.land(ctx) == nil && landed
			if h.restate(number) && !b.add(h) {
				return false
			}
		}
		if !b.send() || !landed || d.session.Number() != number {
			return false
		}
	}
	for _, h := range untold {
		if h.asking() {
			return false // it may not have told yet
		}
	}
	d.restated.Store(number)
	return d.renew(ctx) == nil
}

// untold is the holders of which the ledger was not told in the session of that number.
func (d *Dispenser) untold(number uint64) (out []*holder) {
	for _, h := range d.holders.All() {
		if !h.told(number) {
			out = append(out, h)
		}
	}
	for _, id := range d.idle.untold(number) {
		if h := d.inUse(id); h != nil && !h.told(number) {
			out = append(out, h)
		}
	}
	return out
}

func (h *holder) told(number uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.toldLocked(number)
}

func (h *holder) toldLocked(number uint64) bool { return h.dead || h.last == 0 || h.session == number }

// asking reports whether a call is under way, or has to be repeated.
func (h *holder) asking() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.flight != nil || len(h.queue) > 0
}

// restate prepares a call that tells all that the node has of the holder, unless it was told in the session of that number, or a call is
// under way.
func (h *holder) restate(number uint64) (prepared bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.toldLocked(number) || h.flight != nil {
		return false
	}
	if len(h.queue) == 0 {
		h.enqueueLocked(h.newRequest())
	}
	h.prepareLocked()
	return true
}

// views is the views by which the node went lately, the newest first. It is never changed.
type views struct {
	quota.View
	learned int64 // Unix nanoseconds
	older   *views
}

const (
	// viewMemory is how long a view matters that was replaced: longer than the longest period of a rate.
	viewMemory = 2 * time.Minute
	// clockSkew is how far the clocks of two nodes may differ. A node whose clock is ahead may have used all of a period by an
	// old view that begins, for another node, after that has learned of the new one.
	clockSkew = 5 * time.Second
)

// learn adds a view. Of two answers that cross, the older is dropped.
func (v *views) learn(next quota.View, now int64) *views {
	switch {
	case next == v.View || next.Number < v.Number:
		return v
	case v.older == nil && v.Nodes == 0 && next.Nodes == 1: // no other node has used anything
		return &views{View: next, learned: math.MinInt64}
	}
	return &views{View: next, learned: now, older: v.since(now - int64(viewMemory))}
}

// since is the views without those that were replaced before that time.
func (v *views) since(t int64) *views {
	if v.older == nil || v.learned <= t {
		return &views{View: v.View, learned: v.learned}
	}
	return &views{View: v.View, learned: v.learned, older: v.older.since(t)}
}

// share is the node's share of a rate of that many units in a period that began at that time: the least of all views in the
// period, and in the clockSkew before it. When a node joins, the share shrinks at once. When one leaves, it grows with a period
// that nobody can have begun by then, for that node may have used its own.
func (v *views) share(units, began int64) int64 {
	least := v.Share(units)
	for v.older != nil && v.learned > began-int64(clockSkew) {
		v = v.older
		least = min(least, v.Share(units))
	}
	return least
}

// peer is what the dispenser does for other nodes.
type peer struct{ d *Dispenser }

// GiveBack is quota.Peer.GiveBack: another node has nothing left of the bucket.
func (p peer) GiveBack(ctx context.Context, b quota.Bucket) {
	if h := p.d.inUse(b.HolderID()); h != nil {
		h.giveBack(ctx, b.CountKey())
	}
}

// Lend is quota.Peer.Lend.
func (p peer) Lend(r quota.RateRequest) int64 {
	d := p.d
	now := d.now()
	if !d.session.Good(now) {
		return 0
	}
	return d.holderOf(r.Bucket.HolderID()).rate(&r.Limit).lend(&r, now)
}
