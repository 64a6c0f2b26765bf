package quota

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// The binary form of a Record. Numbers are varints, texts are preceded by their length, instants are Unix seconds, and nodes are
// named once:
//
//	version, nodes, counts, seen
//	node  = text
//	count = name, flags (1 current, 2 previous, 4 prepaid), a page for each
//	page  = start, end, was start, was end (0 for no instant, else seconds + 1 << 40), credited, forgiven, granted, spent,
//	        returned, overage, ceiling, held
//	held  = node (its place among the nodes), units, spent
//	seen  = node, seq, at, granted
//	granted = count (its place among the counts), start, units
//
// A record of one limit that one node uses has about 100 bytes.
const recordVersion = 1

// AppendBinary appends the binary form of the record.
func (r *Record) AppendBinary(out []byte) ([]byte, error) {
	var room [2]NodeID
	e := encoder{append(out, recordVersion), room[:0]}
	e.nodes(r)
	e.uint(uint64(len(r.Counts)))
	for i := range r.Counts {
		e.count(&r.Counts[i])
	}
	e.uint(uint64(len(r.Seen)))
	for i, node := range e.names {
		if seen, ok := r.Seen[node]; ok {
			e.uint(uint64(i))
			e.seen(r, &seen)
		}
	}
	return e.out, nil
}

func (e *encoder) seen(r *Record, s *Seen) {
	e.uint(s.Seq)
	e.time(s.At)
	granted := uint64(0)
	for i := range s.Granted {
		if r.Has(s.Granted[i].Count) {
			granted++
		}
	}
	e.uint(granted)
	for i := range s.Granted {
		g := &s.Granted[i]
		if place := r.place(g.Count); place >= 0 {
			e.uint(uint64(place))
			e.time(g.Start)
			e.int(g.Units)
		}
	}
}

// place is where the record has a count, -1 if it has forgotten it.
func (r *Record) place(count string) int {
	return slices.IndexFunc(r.Counts, func(c Count) bool { return c.Name == count })
}

// encoder appends to out. names is the nodes in their order, without a map's: most records have one.
type encoder struct {
	out   []byte
	names []NodeID
}

func (e *encoder) uint(n uint64) { e.out = binary.AppendUvarint(e.out, n) }
func (e *encoder) int(n int64)   { e.out = binary.AppendVarint(e.out, n) }

func (e *encoder) text(s string) {
	e.uint(uint64(len(s)))
	e.out = append(e.out, s...)
}

const (
	// instantBase is added to the seconds of an instant, so that none is 0.
	instantBase = 1 << 40
	// firstInstant and lastInstant are the first and the last second of the years 1 to 9999, which JSON can show.
	firstInstant, lastInstant = -62135596800, 253402300799
)

func (e *encoder) time(t time.Time) {
	if t.IsZero() {
		e.uint(0)
		return
	}
	e.uint(uint64(t.Unix() + instantBase))
}

func (e *encoder) nodes(r *Record) {
	add := func(n NodeID) {
		if !slices.Contains(e.names, n) {
			e.names = append(e.names, n)
		}
	}
	for node := range r.Seen {
		add(node)
	}
	for i := range r.Counts {
		for _, p := range r.Counts[i].pages() {
			if p == nil {
				continue
			}
			for node := range p.Held {
				add(node)
			}
		}
	}
	slices.Sort(e.names)
	e.uint(uint64(len(e.names)))
	for _, n := range e.names {
		e.text(string(n))
	}
}

func (e *encoder) count(c *Count) {
	e.text(c.Name)
	flags := uint64(0)
	for i, p := range c.pages() {
		if p != nil {
			flags |= 1 << i
		}
	}
	e.uint(flags)
	for _, p := range c.pages() {
		if p != nil {
			e.page(p)
		}
	}
}

func (e *encoder) page(p *Page) {
	for _, t := range [...]time.Time{p.Period.Start, p.Period.End, p.Was.Start, p.Was.End} {
		e.time(t)
	}
	for _, n := range [...]int64{p.Credited, p.Forgiven, p.Granted, p.Spent, p.Returned, p.Overage, p.Ceiling} {
		e.int(n)
	}
	e.uint(uint64(len(p.Held)))
	for i, node := range e.names {
		if h, ok := p.Held[node]; ok {
			e.uint(uint64(i))
			e.int(h.Units)
			e.int(h.Spent)
		}
	}
}

// pages are those that the book may have, in the order of their flags.
func (b *Book) pages() [3]*Page { return [3]*Page{b.Current, b.Previous, b.Prepaid} }

// DecodeRecord reads the binary form of a record. It keeps nothing of its argument. An error says that the record is damaged, or of
// a later version; a record that was cut short or has bytes too many is damaged.
func DecodeRecord(text []byte) (*Record, error) {
	d := &decoder{rest: string(text)}
	if v := d.uint(); v != recordVersion {
		return nil, authz.Errorf(authz.KindUnavailable, "a record of version %d: this version reads %d", v, recordVersion)
	}
	var room [2]NodeID
	d.names = room[:0]
	for range d.len() {
		d.names = append(d.names, NodeID(d.text()))
	}
	r := &Record{}
	if n := d.len(); n > 0 {
		r.Counts = make([]Count, n)
	}
	for i := range r.Counts {
		d.count(&r.Counts[i])
	}
	for range d.len() {
		if r.Seen == nil {
			r.Seen = make(map[NodeID]Seen)
		}
		node, s := d.node(), Seen{Seq: d.uint(), At: d.time()}
		for range d.len() {
			i, g := d.uint(), Granted{Start: d.time(), Units: d.int()}
			if i >= uint64(len(r.Counts)) {
				d.bad = true
				break
			}
			g.Count = r.Counts[i].Name
			s.Granted = append(s.Granted, g)
		}
		r.Seen[node] = s
	}
	if d.bad || len(d.rest) > 0 {
		return nil, authz.Errorf(authz.KindUnavailable, "a record of a holder is damaged")
	}
	return r, nil
}

// decoder reads numbers and texts, which are parts of rest. After the first fault it reads zeros.
type decoder struct {
	rest  string
	bad   bool
	names []NodeID
}

func (d *decoder) fail() {
	d.bad, d.rest = true, ""
}

// uint is binary.Uvarint, of a text.
func (d *decoder) uint() (n uint64) {
	for i := 0; i < len(d.rest) && i < binary.MaxVarintLen64; i++ {
		b := d.rest[i]
		n |= uint64(b&0x7f) << (7 * i)
		if b >= 0x80 {
			continue
		}
		if i == binary.MaxVarintLen64-1 && b > 1 {
			break // more than 64 bits
		}
		d.rest = d.rest[i+1:]
		return n
	}
	d.fail()
	return 0
}

func (d *decoder) int() int64 {
	n := d.uint()
	return int64(n>>1) ^ -int64(n&1)
}

// len is how many things follow. Each takes at least a byte, so that a damaged record cannot ask for much memory.
func (d *decoder) len() int {
	n := d.uint()
	if n > uint64(len(d.rest)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) text() string {
	n := d.len()
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) time() time.Time {
	n := d.uint()
	if n == 0 {
		return time.Time{}
	}
	seconds := int64(min(n, 2*instantBase)) - instantBase
	if seconds < firstInstant || seconds > lastInstant {
		d.fail()
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

func (d *decoder) node() NodeID {
	i := d.uint()
	if i >= uint64(len(d.names)) {
		d.fail()
		return ""
	}
	return d.names[i]
}

func (d *decoder) count(c *Count) {
	c.Name = d.text()
	flags := d.uint()
	for i, p := range [...]**Page{&c.Current, &c.Previous, &c.Prepaid} {
		if flags&(1<<i) != 0 {
			*p = d.page()
		}
	}
	if flags > 7 {
		d.fail()
	}
}

func (d *decoder) page() *Page {
	p := &Page{}
	for _, t := range [...]*time.Time{&p.Period.Start, &p.Period.End, &p.Was.Start, &p.Was.End} {
		*t = d.time()
	}
	for _, n := range [...]*int64{&p.Credited, &p.Forgiven, &p.Granted, &p.Spent, &p.Returned, &p.Overage, &p.Ceiling} {
		*n = d.int()
	}
	for range d.len() {
		if p.Held == nil {
			p.Held = make(map[NodeID]Holding)
		}
		node := d.node()
		p.Held[node] = Holding{Units: d.int(), Spent: d.int()}
	}
	return p
}
