package input

import (
	"encoding/base64"
	"encoding/json"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Value makes the document for OPA's evaluator. It fails if the request or the facts have a value that is not JSON.
func Value(refs *Refs, r *authz.Request, f *authz.Facts) (ast.Value, error) {
	s := new(values)
	s.open = s.memory[:0]
	s.object("", refs.size(12))
	if err := walk(s, refs, r, f); err != nil {
		return nil, err
	}
	return s.open[0].value(), nil
}

// values is the sink that makes values for OPA's evaluator. It builds them directly: see authz/decisions/011.
type values struct {
	open   []container  // open objects and arrays, outermost first
	memory [8]container // the memory of open, up to the usual depth
}

var _ sink = (*values)(nil)

// container is an object, or an array if isArray.
type container struct {
	fields  [][2]*ast.Term
	items   []*ast.Term
	isArray bool
}

func (c *container) value() ast.Value {
	if c.isArray {
		return ast.NewArray(c.items...)
	}
	return ast.NewObject(c.fields...)
}

func (s *values) object(_ string, size int) {
	s.open = append(s.open, container{fields: make([][2]*ast.Term, 0, size)})
}

func (s *values) array(_ string, size int) {
	s.open = append(s.open, container{items: make([]*ast.Term, 0, size), isArray: true})
}

func (s *values) end(field string) {
	last := len(s.open) - 1
	v := s.open[last].value()
	s.open = s.open[:last]
	s.put(field, v)
}

func (s *values) put(field string, v ast.Value) {
	c := &s.open[len(s.open)-1]
	if c.isArray {
		c.items = append(c.items, &ast.Term{Value: v})
		return
	}
	pair := &[2]ast.Term{{Value: ast.String(field)}, {Value: v}}
	c.fields = append(c.fields, [2]*ast.Term{&pair[0], &pair[1]})
}

func (s *values) null(field string)            { s.put(field, ast.NullValue) }
func (s *values) text(field, t string)         { s.put(field, ast.String(t)) }
func (s *values) boolean(field string, b bool) { s.put(field, ast.Boolean(b)) }

func (s *values) base64(field, t string) {
	s.put(field, ast.String(base64.StdEncoding.EncodeToString([]byte(t))))
}

func (s *values) integer(field string, n int64) {
	s.put(field, ast.Number(strconv.FormatInt(n, 10)))
}

func (s *values) float(field string, n float64)      { s.put(field, ast.FloatNumberTerm(n).Value) }
func (s *values) number(field string, n json.Number) { s.put(field, ast.Number(n)) }

func (s *values) texts(field string, list []string) {
	terms := make([]*ast.Term, len(list))
	for i, t := range list {
		terms[i] = ast.StringTerm(t)
	}
	s.put(field, ast.NewArray(terms...))
}

func (s *values) sorted() bool { return false }
