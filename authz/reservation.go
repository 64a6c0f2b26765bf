package authz

import "strconv"

// Reservation is units that were taken for one request. The zero value holds nothing. Who has one taken provides its
// memory, so that taking units needs none. It is not to be used by two goroutines at once.
type Reservation struct {
	node   *string
	number uint64
	n      int     // how many parts there are
	few    [2]part // the first parts, so that few limits need no memory of their own
	more   []part
}

// part is what was taken from one source.
type part struct {
	from  Source
	units int64
}

// Source is where units come from.
type Source interface {
	// PutBack takes back units of a reservation that was cancelled. The id is unique to the reservation's part.
	PutBack(id string, units int64)
}

// Begin names the reservation, by the node that takes the units and a number that it gives only once. What the
// reservation held before is forgotten. The name of the node must not change.
func (r *Reservation) Begin(node *string, number uint64) {
	*r = Reservation{node: node, number: number, more: r.more[:0]}
}

// Add notes that units were taken.
func (r *Reservation) Add(from Source, units int64) {
	if r.n < len(r.few) {
		r.few[r.n] = part{from, units}
	} else {
		r.more = append(r.more, part{from, units})
	}
	r.n++
}

// Holds reports whether anything is taken.
func (r *Reservation) Holds() bool { return r.n > 0 }

// ID identifies the reservation in logs and when it is settled. It is unique over all nodes and times, and empty for a
// reservation that was never begun.
func (r *Reservation) ID() string {
	if r.node == nil {
		return ""
	}
	return *r.node + "." + strconv.FormatUint(r.number, 36)
}

// Cancel gives the units back. The reservation then holds nothing.
func (r *Reservation) Cancel() {
	for i := range r.n {
		p := r.few[min(i, len(r.few)-1)]
		if i >= len(r.few) {
			p = r.more[i-len(r.few)]
		}
		p.from.PutBack(r.ID()+"."+strconv.Itoa(i), p.units)
	}
	r.n, r.more = 0, nil
}
