package dispenser

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser/holding"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// request is one request to the ledger.
type request struct {
	quota.LeaseRequest
	parts []part // as those of the LeaseRequest
	// sent is when the request was made, before it was first sent. What the answer says is as old as that, even if it comes to a
	// repetition.
	sent holding.Sent
}

// part is what a request says about one lease.
type part struct {
	lease  *bucketLease
	source *source // whose units it is about
	low    int64   // with fewer units left it is time to ask again
}

// flight is one call that is under way. Those who wait for it read err after done is closed.
type flight struct {
	request *request
	done    chan struct{}
	err     error
}

// about reports whether the call is about that lease.
func (f *flight) about(b *bucketLease) bool {
	for i := range f.request.parts {
		if f.request.parts[i].lease == b {
			return true
		}
	}
	return false
}

// recallLocked asks other nodes to give back what they hold, unless that was done within holding.Recheck. It reports whether it did,
// so that the ledger has to be asked again. It releases the lock while it waits.
func (h *holder) recallLocked(ctx context.Context, b *bucketLease, now time.Time) bool {
	at := h.d.moment(now)
	if b.elsewhere == 0 || b.recalled.within(holding.Recheck, at) {
		return false
	}
	b.recalled = at
	h.mu.Unlock()
	h.d.ledger.Recall(ctx, h.d.node, b.bucket())
	h.mu.Lock()
	return true
}

// callLocked has the ledger asked for that many units under a limit, or joins the call under way, and waits. It releases
// the lock while it waits.
func (h *holder) callLocked(ctx context.Context, b *bucketLease, l *authz.Limit, units int64) error {
	if now := h.d.now(); !h.d.session.Good(now) { // what is leased without a session cannot be used
		h.mu.Unlock()
		err := h.d.attend(ctx, now)
		h.mu.Lock()
		if err != nil || h.dead {
			return err
		}
	}
	b.waiting = min(quota.MaxUnits, b.waiting) + units
	if h.flight == nil || !h.flight.about(b) {
		b.asked = l
	}
	err := h.waitLocked(ctx, h.startLocked())
	b.waiting -= units
	return err
}

// waitLocked waits for a call. It releases the lock while it waits.
func (h *holder) waitLocked(ctx context.Context, f *flight) (err error) {
	h.mu.Unlock()
	defer h.mu.Lock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flushLocked waits until every request that was made is answered. It releases the lock while it waits.
func (h *holder) flushLocked(ctx context.Context) error {
	for h.flight != nil || len(h.queue) > 0 {
		if err := h.waitLocked(ctx, h.startLocked()); err != nil {
			return err
		}
	}
	return nil
}

// startLocked starts a call unless one is under way.
func (h *holder) startLocked() *flight {
	if f := h.flight; f != nil {
		return f
	}
	f := h.prepareLocked()
	h.d.goCall(func(ctx context.Context) { h.d.exchange(ctx, []*holder{h}) })
	return f
}

// prepareLocked makes the flight of a call that the caller then makes with exchange. None may be under way.
func (h *holder) prepareLocked() *flight {
	if len(h.queue) == 0 {
		h.enqueueLocked(h.requestLocked())
	}
	h.tellLocked(h.queue[0])
	h.flight = &flight{request: h.queue[0], done: make(chan struct{})}
	return h.flight
}

// startAll starts one call for all of the holders that need one. Nil holders are passed over.
func (d *Dispenser) startAll(holders []*holder) {
	var start []*holder
	for _, h := range holders {
		if h == nil {
			continue
		}
		h.mu.Lock()
		if h.flight == nil && !h.dead && (len(h.queue) > 0 || h.askedLocked()) {
			h.prepareLocked()
			start = append(start, h)
		}
		h.mu.Unlock()
	}
	if len(start) > 0 {
		d.goCall(func(ctx context.Context) { d.exchange(ctx, start) })
	}
}

// exchange makes one call to the ledger for the flights of those holders, and takes over the answers.
func (d *Dispenser) exchange(ctx context.Context, holders []*holder) {
	rs := make([]quota.LeaseRequest, len(holders))
	for i, h := range holders {
		rs[i] = h.flight.request.LeaseRequest // the flight is ours until answerLocked
	}
	answers, err := d.send(ctx, rs)
	if slices.ContainsFunc(answers, func(a quota.Answer) bool { return a.Lost }) {
		_ = d.renew(ctx) // what is asked next is asked in the new session, and tells all
	}
	for i, h := range holders {
		h.mu.Lock()
		if err != nil {
			h.answerLocked(nil, err)
		} else {
			h.answerLocked(answers[i].Parts, answers[i].Err)
		}
		h.mu.Unlock()
	}
}

var errAnswers = errors.New("the ledger answered other requests")

// send makes one call to the ledger.
func (d *Dispenser) send(ctx context.Context, rs []quota.LeaseRequest) ([]quota.Answer, error) {
	if !d.session.Good(d.now()) {
		if err := d.renew(ctx); err != nil {
			return nil, err
		}
	}
	answers, err := d.ledger.Lease(ctx, rs)
	if err == nil && len(answers) != len(rs) {
		return nil, errAnswers
	}
	return answers, err
}

// requestLocked makes a request about the leases for which the ledger has to be asked. It reports what was spent.
func (h *holder) requestLocked() *request {
	r := h.newRequest()
	for b := h.leases.Load(); b != nil; b = b.next {
		if l := b.asked; l != nil {
			b.asked = nil
			b.askLocked(r, l)
		}
	}
	return r
}

func (h *holder) newRequest() *request {
	return &request{
		LeaseRequest: quota.LeaseRequest{Node: h.d.node, Seq: h.d.seq.Add(1), Holder: h.id},
		sent:         holding.Sent{At: h.d.now(), Session: h.d.session.Number()},
	}
}

// askLocked adds a part that asks for more. Units of a period that is over go back.
func (b *bucketLease) askLocked(r *request, l *authz.Limit) {
	s, back := b.source.Load(), int64(0)
	if s.Over(r.sent.At) {
		b.refundOverLocked(s)
		back = s.Drain()
	}
	size := b.sizeLocked(l)
	want := min(quota.MaxUnits, max(0, max(size, b.waiting)-s.Left()))
	r.add(b, s, size/8, quota.LeasePart{Limit: *l, Back: back, Want: want})
}

// returnLocked adds a part that gives back all but that many units, if there is anything to give back or to report.
func (b *bucketLease) returnLocked(r *request, keep int64) {
	s, back := b.source.Load(), int64(0)
	b.refundOverLocked(s)
	if keep == 0 {
		back = s.Drain()
	} else if more := s.Left() - keep; more > 0 {
		back = s.GiveUp(more)
	}
	if back > 0 || s.Spent() > 0 {
		r.add(b, s, keep/8, quota.LeasePart{Limit: *b.limit.Load(), Back: back})
	}
}

// add adds a part, and reports in it what was spent.
func (r *request) add(b *bucketLease, s *source, low int64, p quota.LeasePart) {
	p.Count, p.Held, p.Spent = b.count, s.Period, s.Unreported()
	r.Parts = append(r.Parts, p)
	r.parts = append(r.parts, part{b, s, low})
}

// enqueueLocked adds a request to the queue. The first of a session tells all that the node has of the holder.
func (h *holder) enqueueLocked(r *request) {
	h.queue = append(h.queue, r)
	if h.last == 0 || h.session == r.sent.Session {
		return
	}
	r.Restates = true
	for b := h.leases.Load(); b != nil; b = b.next {
		s := b.source.Load()
		if !slices.ContainsFunc(r.parts, func(p part) bool { return p.lease == b }) {
			r.add(b, s, s.LowMark(), quota.LeasePart{Limit: *b.limit.Load()})
		}
	}
}

// rememberedFor is for how long a node can be sure that the ledger remembers its last request.
const rememberedFor = quota.SeenMemory / 2

// tellLocked says in the first request of the queue what the node knows from the answers before.
func (h *holder) tellLocked(r *request) {
	r.Last = 0
	for b := h.leases.Load(); b != nil; b = b.next {
		if b.source.Load().AskedSince(h.d.now().Add(-rememberedFor)) {
			r.Last = h.last
		}
	}
	if !r.Restates {
		return
	}
	for i := range r.parts {
		s := r.parts[i].source
		known := quota.Holding{Units: s.Held(), Spent: r.parts[i].lease.reported}
		for _, q := range h.queue { // what was not answered was taken out here already
			for j, p := range q.parts {
				if p.source == s {
					known.Units += q.Parts[j].Spent + q.Parts[j].Back
				}
			}
		}
		r.Parts[i].Known = known
	}
}

// answerLocked takes over the ledger's answer to the flight, and starts the next call if there is one to make.
func (h *holder) answerLocked(leases []quota.Lease, err error) {
	f := h.flight
	r := f.request
	if err == nil && len(leases) != len(r.parts) {
		err = errAnswers
	}
	switch k := authz.KindOf(err); {
	case err == nil:
		h.dequeueLocked()
		if r.Restates || h.last == 0 {
			h.session = r.sent.Session
		}
		h.last = r.Seq
		for i := range r.parts {
			r.parts[i].lease.takeOverLocked(r, i, leases[i])
		}
	case k == authz.KindInvalid || k == authz.KindConflict: // it did not take place: the next request reports what this one would have
		h.dequeueLocked()
		for i, p := range r.parts {
			p.source.Unreport(r.Parts[i].Spent)
			p.source.Restock(r.Parts[i].Back)
		}
	default: // it is unknown whether it took place: it is repeated
	}
	h.flight, f.err = nil, err
	if err == nil && r.withheld(leases) {
		f.err = errWithheld
	}
	close(f.done)
	if err == nil && (len(h.queue) > 0 || h.askedLocked()) {
		h.startLocked()
	}
}

var errWithheld = authz.Errorf(authz.KindUnavailable, "the ledger may have lost commits, and grants nothing for now")

// withheld reports whether the ledger gave less than was wanted because it grants nothing for now.
func (r *request) withheld(leases []quota.Lease) bool {
	for i := range leases {
		if leases[i].Withheld && r.Parts[i].Want > leases[i].Granted {
			return true
		}
	}
	return false
}

// dequeueLocked removes the request that was answered, and keeps none of its memory.
func (h *holder) dequeueLocked() {
	h.queue[0] = nil
	if h.queue = h.queue[1:]; len(h.queue) == 0 {
		h.queue = nil
	}
}

// askedLocked reports whether the ledger has to be asked about any lease.
func (h *holder) askedLocked() bool {
	for b := h.leases.Load(); b != nil; b = b.next {
		if b.asked != nil {
			return true
		}
	}
	return false
}

// takeOverLocked takes over the answer to part i of a request.
func (b *bucketLease) takeOverLocked(r *request, i int, lease quota.Lease) {
	s, p := b.source.Load(), &r.Parts[i]
	if !lease.Period.Same(s.Period) {
		old := b.h.newRequest()
		if b.returnLocked(old, 0); len(old.parts) > 0 { // units of the period that is over
			b.h.enqueueLocked(old)
		}
		s = b.newSource(lease.Period)
	}
	s.Refill(lease, r.sent, p.Limit.Units, r.parts[i].low)
	b.nodes, b.elsewhere, b.reported, b.withheld = lease.Nodes, lease.Elsewhere, lease.Reported, lease.Withheld
	b.surrenderLocked(&p.Limit)
}

// surrenderLocked has units given back that a lowered limit no longer grants. Requests under a limit of more units lease them
// again, so this is done at most once within holding.Recheck.
func (b *bucketLease) surrenderLocked(l *authz.Limit) {
	s, now := b.source.Load(), b.h.d.moment(b.h.d.now())
	if s.Floor(l.Units) <= 0 || b.surrendered.within(holding.Recheck, now) {
		return
	}
	b.refundOverLocked(s)
	if back := s.GiveUp(s.Floor(l.Units)); back > 0 {
		b.surrendered = now
		r := b.h.newRequest()
		r.add(b, s, 0, quota.LeasePart{Limit: *l, Back: back})
		b.h.enqueueLocked(r)
	}
}

// sizeLocked is how many units to hold: as many as last for a while at the speed at which the last ones were used up, within
// this node's share of what is left, so that the last units are leased in small change. A node alone takes half, down to one unit.
func (b *bucketLease) sizeLocked(l *authz.Limit) int64 {
	s, room := b.source.Load(), l.Units
	if runsOut, lasted, asked := s.RunsOut(b.h.d.now()); asked {
		room = s.Remaining(l.Units)
		switch {
		case runsOut && lasted < fastLease:
			b.size *= 2
		case lasted > slowLease:
			b.size = int64(float64(b.size) * float64(goodLease) / float64(lasted))
		}
	}
	least := max(1, smallShare(s, l))
	if room == 0 { // there may be units under another limit, for which the size has to stay
		return least
	}
	b.size = max(min(b.size, s.Taken()-b.taken[0]), least) // no more than was used of late, whatever a crash strands
	last := int64(1)
	if b.nodes > 1 {
		last = min(leastShared, least)
	}
	return max(last, min(b.size, room/max(2, b.nodes)))
}

// smallShare is how many units of a limit a crash may strand, whoever the caller is.
func smallShare(s *source, l *authz.Limit) int64 { return (l.Units + s.Credited()) / smallPart }

// goCall runs a call to the ledger that outlives the check that asked for it.
func (d *Dispenser) goCall(f func(ctx context.Context)) {
	d.calls.Add(1)
	d.spawn(func() {
		defer d.calls.Done()
		ctx, cancel := context.WithTimeout(d.ctx, callTimeout)
		defer cancel()
		f(ctx)
	})
}
