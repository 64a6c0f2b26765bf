package wire

import (
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// typicalHeaders is the number of headers that memory is first allocated for.
const typicalHeaders = 24

// headerMap reads the list in which the proxy keeps repeated headers apart and does not change their bytes.
func (d *decoder) headerMap(s string) {
	for s != "" {
		var f field
		if f, s = d.next(s); f.tag == headerMapHeaders {
			d.rawHeader(f.text)
		}
	}
}

func (d *decoder) rawHeader(s string) {
	var name, value, raw string
	for s != "" {
		var f field
		switch f, s = d.next(s); f.tag {
		case headerKey:
			name = d.utf8(f.text)
		case headerValue:
			value = d.utf8(f.text)
		case headerRawValue:
			raw = f.text
		}
	}
	if raw != "" {
		value = raw
	}
	if d.raw == nil {
		d.raw = make(authz.Headers, 0, typicalHeaders)
	}
	d.raw = append(d.raw, authz.Header{Name: strings.ToLower(name), Value: value})
}

// plainHeader reads an entry of the map in which the proxy has joined repeated headers.
func (d *decoder) plainHeader(s string) {
	if d.plain == nil {
		d.plain = make(authz.Headers, 0, typicalHeaders)
	}
	name, value := d.entry(s)
	d.plain = append(d.plain, authz.Header{Name: name, Value: value})
}

// headers returns the headers of the list, or of the map if the list is empty. It also returns whether they are from the list.
func (d *decoder) headers() (authz.Headers, bool) {
	if len(d.raw) > 0 {
		return d.raw, true
	}
	out := lastOfEach(d.plain)
	for i := range out {
		out[i].Name = strings.ToLower(out[i].Name)
	}
	return out, false
}

// fewHeaders is the number of headers up to which comparing all pairs is faster than sorting.
const fewHeaders = 64

// lastOfEach returns the last header of each name, as in a map.
func lastOfEach(in authz.Headers) authz.Headers {
	look := len(in)
	if look > fewHeaders { // sort them, so that equal names are neighbours
		slices.SortStableFunc(in, func(a, b authz.Header) int { return strings.Compare(a.Name, b.Name) })
		look = 1
	}
	out := in[:0]
	for i, h := range in {
		later := in[i+1 : min(i+1+look, len(in))]
		if !later.Has(h.Name) {
			out = append(out, h)
		}
	}
	return out
}
