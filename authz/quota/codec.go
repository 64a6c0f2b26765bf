package quota

import (
	"encoding/binary"
	"maps"
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
	e := &encoder{out: append(out, recordVersion)}
	e.nodes(r)
	e.uint(uint64(len(r.Counts)))
	for i := range r.Counts {
		e.count(&r.Counts[i])
	}
	e.uint(uint64(len(r.Seen)))
	for _, node := range slices.Sorted(maps.Keys(r.Seen)) {
		seen := r.Seen[node]
		e.node(node)
		e.uint(seen.Seq)
		e.time(seen.At)
		granted := slices.DeleteFunc(slices.Clone(seen.Granted), func(g Granted) bool { return r.place(g.Count) < 0 })
		e.uint(uint64(len(granted)))
		for _, g := range granted {
			e.uint(uint64(r.place(g.Count)))
			e.time(g.Start)
			e.int(g.Units)
		}
	}
	return e.out, nil
}

// place is where the record has a count, -1 if it has forgotten it.
func (r *Record) place(count string) int {
	return slices.IndexFunc(r.Counts, func(c Count) bool { return c.Name == count })
}

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

// instantBase is added to the seconds of an instant, so that none is 0.
const instantBase = 1 << 40

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

func (e *encoder) node(n NodeID) { e.uint(uint64(slices.Index(e.names, n))) }

func (e *encoder) count(c *Count) {
	e.text(c.Name)
	flags := uint64(0)
	for i, p := range []*Page{c.Current, c.Previous, c.Prepaid} {
		if p != nil {
			flags |= 1 << i
		}
	}
	e.uint(flags)
	for _, p := range c.pages() {
		e.page(p)
	}
}

func (e *encoder) page(p *Page) {
	for _, t := range []time.Time{p.Period.Start, p.Period.End, p.Was.Start, p.Was.End} {
		e.time(t)
	}
	for _, n := range []int64{p.Credited, p.Forgiven, p.Granted, p.Spent, p.Returned, p.Overage, p.Ceiling} {
		e.int(n)
	}
	e.uint(uint64(len(p.Held)))
	for _, node := range slices.Sorted(maps.Keys(p.Held)) {
		e.node(node)
		e.int(p.Held[node].Units)
		e.int(p.Held[node].Spent)
	}
}

// pages are those of the book, in the order of their flags.
func (b *Book) pages() []*Page {
	return slices.DeleteFunc([]*Page{b.Current, b.Previous, b.Prepaid}, func(p *Page) bool { return p == nil })
}

// DecodeRecord reads the binary form of a record. It keeps nothing of its argument. An error says that the record is damaged, or of
// a later version; a record that was cut short or has bytes too many is damaged.
func DecodeRecord(text []byte) (*Record, error) {
	d := &decoder{rest: text}
	if v := d.uint(); v != recordVersion {
		return nil, authz.Errorf(authz.KindUnavailable, "a record of version %d: this version reads %d", v, recordVersion)
	}
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

// decoder reads numbers and texts. After the first fault it reads zeros.
type decoder struct {
	rest  []byte
	bad   bool
	names []NodeID
}

func (d *decoder) fail() {
	d.bad, d.rest = true, nil
}

func (d *decoder) uint() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) int() int64 {
	n, size := binary.Varint(d.rest)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[size:]
	return n
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
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) time() time.Time {
	n := d.uint()
	if n == 0 {
		return time.Time{}
	}
	t := time.Unix(int64(min(n, 2*instantBase))-instantBase, 0).UTC()
	if y := t.Year(); y < 1 || y > 9999 {
		d.fail()
		return time.Time{}
	}
	return t
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
	for i, p := range []**Page{&c.Current, &c.Previous, &c.Prepaid} {
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
	for _, t := range []*time.Time{&p.Period.Start, &p.Period.End, &p.Was.Start, &p.Was.End} {
		*t = d.time()
	}
	for _, n := range []*int64{&p.Credited, &p.Forgiven, &p.Granted, &p.Spent, &p.Returned, &p.Overage, &p.Ceiling} {
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
