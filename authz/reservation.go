package authz

import "strconv"

// Reservation is units that were taken for one request. The zero value holds nothing. It must not be used by two goroutines
// at once.
type Reservation struct {
	node   string
	number uint64
	first  [2]part // most requests charge at most two limits, and then need no memory besides
	more   []part
}

// part is the units from one source.
type part struct {
	from  Source
	units int64
}

// Source is a source of units.
type Source interface {
	// PutBack takes back units of a reservation that was cancelled. The id is unique to the reservation's part.
	PutBack(id string, units int64)
}

// Begin empties the reservation and gives it a name: the node that takes the units, and a number that the node uses only once.
func (r *Reservation) Begin(node string, number uint64) {
	*r = Reservation{node: node, number: number, more: r.more[:0]}
}

// Add records units that were taken from a source.
func (r *Reservation) Add(from Source, units int64) {
	for i := range r.first {
		if r.first[i].from == nil {
			r.first[i] = part{from, units}
			return
		}
	}
	r.more = append(r.more, part{from, units})
}

// Holds reports whether the reservation has units.
func (r *Reservation) Holds() bool { return r.first[0].from != nil }

// ID names the reservation in logs and when it is settled. It is unique over all nodes and times, and empty before Begin.
func (r *Reservation) ID() string {
	if r.node == "" && r.number == 0 {
		return ""
	}
	var room [64]byte
	return string(strconv.AppendUint(append(append(room[:0], r.node...), '.'), r.number, 36))
}

// Cancel gives the units back. The reservation then holds nothing.
func (r *Reservation) Cancel() {
	for i, p := range r.first {
		if p.from != nil {
			p.from.PutBack(r.partID(i), p.units)
		}
	}
	for i, p := range r.more {
		p.from.PutBack(r.partID(len(r.first)+i), p.units)
	}
	r.first, r.more = [2]part{}, nil
}

func (r *Reservation) partID(i int) string { return r.ID() + "." + strconv.Itoa(i) }
