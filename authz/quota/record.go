package quota

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Record is everything that a ledger knows about one holder: the books of its limits, and what its nodes asked last. A store
// reads and writes it as one value (AppendBinary, DecodeRecord). The zero Record is a holder who was never charged. Like Book it
// does no I/O and takes no lock.
type Record struct {
	Counts []Count // in the order of their names
	Seen   map[NodeID]Seen
}

// Count is the book of one limit, or of all limits that share the count.
type Count struct {
	Name string // Bucket.CountKey
	Book
}

// Seen is the last request of one node.
type Seen struct {
	Seq     uint64
	At      time.Time
	Granted []Granted // only what is not 0
}

// Granted is what a request was granted of one limit.
type Granted struct {
	Count string
	Start time.Time // of the period
	Units int64
}

// Has reports whether the record has a book of that count.
func (r *Record) Has(count string) bool { return r.place(count) >= 0 }

// Book returns the book of a count, a new one if there is none.
func (r *Record) Book(count string) *Book {
	i, ok := slices.BinarySearchFunc(r.Counts, count, func(c Count, name string) int { return cmp.Compare(c.Name, name) })
	if !ok {
		r.Counts = slices.Insert(r.Counts, i, Count{Name: count})
	}
	return &r.Counts[i].Book
}

// Clone is a copy that shares nothing with the record.
func (r *Record) Clone() *Record {
	out := &Record{Counts: slices.Clone(r.Counts), Seen: maps.Clone(r.Seen)}
	for i := range out.Counts {
		for _, p := range []**Page{&out.Counts[i].Current, &out.Counts[i].Previous, &out.Counts[i].Prepaid} {
			if *p != nil {
				page := **p
				page.Held = maps.Clone(page.Held)
				*p = &page
			}
		}
	}
	return out
}

// Lease is Ledger.Lease for one request, at that instant of the ledger's clock.
func (r *Record) Lease(q *LeaseRequest, at Instant) (a Answer) {
	if a.Err = q.check(); a.Err != nil {
		return a
	}
	last, ok := r.Seen[q.Node]
	switch {
	case last.Seq < q.Last && !q.Restates:
		a.Lost = true
		a.Err = authz.Errorf(authz.KindConflict, "request %d of node %q was answered, and is lost", q.Last, q.Node)
	case ok && q.Seq < last.Seq:
		a.Err = authz.Errorf(authz.KindConflict, "request %d of node %q comes after its request %d", q.Seq, q.Node, last.Seq)
	case ok && q.Seq == last.Seq:
		a.Parts = r.again(q, &last, at)
	default:
		a.Lost = last.Seq < q.Last
		at.Withhold = at.Withhold || a.Lost
		a.Parts = r.lease(q, a.Lost, at)
	}
	return a
}

// check returns an error if the numbers of a request cannot be those of one.
func (q *LeaseRequest) check() error {
	for i := range q.Parts {
		if err := q.Parts[i].check(); err != nil {
			return err
		}
		if slices.ContainsFunc(q.Parts[:i], func(p LeasePart) bool { return p.Count == q.Parts[i].Count }) {
			return authz.Errorf(authz.KindInvalid, "two parts of a request are about limit %q", q.Parts[i].Limit.Name)
		}
	}
	return nil
}

// lease carries out a request for the first time. The answers are in the order of the parts.
func (r *Record) lease(q *LeaseRequest, behind bool, at Instant) []Lease {
	seen := Seen{Seq: q.Seq, At: at.Time}
	out := make([]Lease, len(q.Parts))
	nodes := r.sharing(q.Node, at)
	for i := range q.Parts {
		part := &q.Parts[i]
		page, granted := r.Book(part.Count).lease(q.Node, part, behind, at)
		if granted > 0 {
			seen.Granted = append(seen.Granted, Granted{part.Count, page.Period.Start, granted})
		}
		out[i] = page.leaseOf(q.Node, granted, nodes, at)
	}
	r.remember(q.Node, seen, at)
	return out
}

// leaseOf is what a node is told about the page.
func (p *Page) leaseOf(node NodeID, granted, nodes int64, at Instant) Lease {
	h := p.Held[node]
	return Lease{
		Period: p.Period, Granted: granted, Held: h.Units, Reported: h.Spent, Withheld: at.Withhold,
		Counted: p.counted(), Credited: p.Credited, Elsewhere: p.elsewhere(node, at), Nodes: nodes,
	}
}

// again answers a request that took place before. What it was granted is still held, for the node has asked for nothing since,
// unless the period is over or the units were taken from a node that was thought dead.
func (r *Record) again(q *LeaseRequest, last *Seen, at Instant) []Lease {
	out := make([]Lease, len(q.Parts))
	nodes := r.sharing(q.Node, at)
	for i := range q.Parts {
		part := &q.Parts[i]
		page := r.Book(part.Count).rollOver(&part.Limit, at.Time)
		var granted int64
		for _, g := range last.Granted {
			if g.Count == part.Count && (g.Start.Equal(page.Period.Start) || g.Start.Equal(page.Was.Start) && !page.Was.End.IsZero()) {
				granted = min(g.Units, page.Held[q.Node].Units)
			}
		}
		out[i] = page.leaseOf(q.Node, granted, nodes, at)
	}
	return out
}

// SeenMemory is how long a ledger remembers the last request of a node that is gone.
const SeenMemory = time.Hour

// remember keeps the last request of a node, and forgets what nothing depends on any more.
func (r *Record) remember(node NodeID, s Seen, at Instant) {
	if r.Seen == nil {
		r.Seen = make(map[NodeID]Seen)
	}
	r.Seen[node] = s
	for n, old := range r.Seen {
		switch {
		case old.At.After(at.Time): // by a wrong clock
			old.At = at.Time
			r.Seen[n] = old
		case at.Time.Sub(old.At) > SeenMemory && !at.Alive(n):
			delete(r.Seen, n)
		}
	}
	r.Counts = slices.DeleteFunc(r.Counts, func(c Count) bool { return c.Forgettable(at.Time) })
}

// sharing counts the nodes that hold units or asked of late, that one included.
func (r *Record) sharing(node NodeID, at Instant) int64 {
	n := int64(1)
	for other, seen := range r.Seen {
		if other != node && at.Alive(other) && (at.Time.Sub(seen.At) < SessionTerm || r.holds(other)) {
			n++
		}
	}
	return n
}

func (r *Record) holds(node NodeID) bool {
	for i := range r.Counts {
		for _, p := range []*Page{r.Counts[i].Current, r.Counts[i].Prepaid} {
			if p != nil && p.Held[node].Units > 0 {
				return true
			}
		}
	}
	return false
}

// Forgettable reports whether a new record would answer as this one does: the periods of its books are over, nothing of them can
// be settled or repeated any more, and it has no prepaid balance.
func (r *Record) Forgettable(now time.Time) bool {
	for i := range r.Counts {
		if !r.Counts[i].Forgettable(now) {
			return false
		}
	}
	for _, seen := range r.Seen {
		if now.Sub(seen.At) <= SeenMemory {
			return false
		}
	}
	return true
}

// Check returns an error that names the first broken invariant of any book.
func (r *Record) Check() error {
	for i := range r.Counts {
		if err := r.Counts[i].Check(); err != nil {
			return err
		}
	}
	return nil
}

// Stranded calls each for the prepaid units of nodes that are gone, until it returns false.
func (r *Record) Stranded(h HolderID, at Instant, each func(Stranding) bool) bool {
	for i := range r.Counts {
		if r.Counts[i].Prepaid == nil {
			continue
		}
		bucket, err := h.Bucket(r.Counts[i].Name)
		if err == nil && !r.Counts[i].Stranded(bucket, at, each) {
			return false
		}
	}
	return true
}
