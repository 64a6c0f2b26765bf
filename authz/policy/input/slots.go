package input

import (
	"encoding/base64"
	"encoding/json"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Slots are parts of the document, each given by a path of names. A compiled policy reads its input from them, so that the document
// need not be built.
type Slots struct {
	refs *Refs
	root *place
	n    int
}

// place is a place in the document.
type place struct {
	slot int // its number, -1 if it is none
	next map[string]*place
}

// SlotsOf returns slots for the paths, in their order.
func SlotsOf(paths [][]string) *Slots {
	s := &Slots{refs: &Refs{}, root: newPlace(), n: len(paths)}
	for i, path := range paths {
		at, refs := s.root, s.refs
		for _, name := range path {
			at, refs = at.make(name), refs.make(name)
		}
		at.slot, refs.all = i, true
	}
	s.refs.settle()
	return s
}

func newPlace() *place { return &place{slot: -1, next: make(map[string]*place)} }

func (p *place) make(name string) *place {
	if p.next[name] == nil {
		p.next[name] = newPlace()
	}
	return p.next[name]
}

// at returns the place below that name, nil if no slot is there. Nothing is below nil.
func (p *place) at(name string) *place {
	if p == nil {
		return nil
	}
	return p.next[name]
}

// Fill returns the values of the slots, nil for those that are undefined. It appends them to room. It fails if the request or the
// facts have a value that is not JSON.
func (s *Slots) Fill(room []*ast.Term, r *authz.Request, f *authz.Facts) ([]*ast.Term, error) {
	out := slotFiller{slots: room}
	for range s.n {
		out.slots = append(out.slots, nil)
	}
	out.terms = make([]ast.Term, 0, s.n)
	out.values.open = out.values.memory[:0]
	out.places = append(out.room[:0], s.root)
	if s.root.slot >= 0 {
		out.values.object("", 12)
	}
	if err := walk(&out, s.refs, r, f); err != nil {
		return nil, err
	}
	if s.root.slot >= 0 {
		out.fill(s.root, out.values.open[0].value())
	}
	return out.slots, nil
}

// slotFiller is the sink that fills slots. It passes over objects that are no slots, and builds those that are.
type slotFiller struct {
	slots  []*ast.Term
	terms  []ast.Term // memory for the terms of slots
	places []*place   // of the open objects that are not built, outermost first
	room   [8]*place
	values values // builds a slot that is an object or an array, while it has open ones
}

var _ sink = (*slotFiller)(nil)

func (s *slotFiller) building() bool { return len(s.values.open) > 0 }

func (s *slotFiller) object(field string, size int) {
	if s.building() {
		s.values.object(field, size)
		return
	}
	at := s.places[len(s.places)-1].at(field)
	s.places = append(s.places, at)
	if at != nil && at.slot >= 0 {
		s.values.object(field, size)
	}
}

func (s *slotFiller) array(field string, size int) {
	if !s.building() {
		s.places = append(s.places, s.places[len(s.places)-1].at(field))
	}
	s.values.array(field, size)
}

func (s *slotFiller) end(field string) {
	if len(s.values.open) > 1 || s.building() && s.places[0].slot >= 0 {
		s.values.end(field)
		return
	}
	last := len(s.places) - 1
	if s.building() {
		v := s.values.open[0].value()
		s.values.open = s.values.open[:0]
		s.fill(s.places[last], v)
	}
	s.places = s.places[:last]
}

// fill fills the slot at a place and those below it.
func (s *slotFiller) fill(at *place, v ast.Value) {
	if at == nil {
		return
	}
	if at.slot >= 0 {
		s.set(at, v)
	}
	o, ok := v.(ast.Object)
	if !ok {
		return
	}
	for name, next := range at.next {
		if t := o.Get(ast.InternedTerm(name)); t != nil {
			s.fill(next, t.Value)
		}
	}
}

// put adds a value that is neither an object nor an array.
func (s *slotFiller) put(field string, v ast.Value) {
	if s.building() {
		s.values.put(field, v)
		return
	}
	if at := s.places[len(s.places)-1].at(field); at != nil && at.slot >= 0 {
		s.set(at, v)
	}
}

// set sets the value of a slot.
func (s *slotFiller) set(at *place, v ast.Value) {
	s.terms = append(s.terms, ast.Term{Value: v})
	s.slots[at.slot] = &s.terms[len(s.terms)-1]
}

func (s *slotFiller) null(field string)            { s.put(field, ast.NullValue) }
func (s *slotFiller) text(field, t string)         { s.put(field, ast.String(t)) }
func (s *slotFiller) boolean(field string, b bool) { s.put(field, ast.Boolean(b)) }

func (s *slotFiller) base64(field, t string) {
	s.put(field, ast.String(base64.StdEncoding.EncodeToString([]byte(t))))
}

func (s *slotFiller) integer(field string, n int64) {
	s.put(field, ast.Number(strconv.FormatInt(n, 10)))
}

func (s *slotFiller) float(field string, n float64)      { s.put(field, ast.FloatNumberTerm(n).Value) }
func (s *slotFiller) number(field string, n json.Number) { s.put(field, ast.Number(n)) }

func (s *slotFiller) texts(field string, list []string) {
	terms := make([]*ast.Term, len(list))
	for i, t := range list {
		terms[i] = ast.StringTerm(t)
	}
	s.put(field, ast.NewArray(terms...))
}

func (s *slotFiller) sorted() bool { return false }
