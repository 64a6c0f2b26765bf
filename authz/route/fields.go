package route

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/agnivade/levenshtein"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// The fields of an entry. Each function reports what is wrong with a field and returns its value, or the zero value.

// known reports fields that do not exist.
func (p *parser) known(fields map[string]any, at place, names ...string) {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(names, name) {
			p.fault(at.below(name), "%s is no field here%s", name, hint(name, names))
		}
	}
}

// hint names the most similar of some names.
func hint(name string, names []string) string {
	best, distance := "", 3
	for _, n := range names {
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(n)); d < distance {
			best, distance = n, d
		}
	}
	if best == "" {
		return ": want " + strings.Join(names, ", ")
	}
	return ": did you mean " + best + "?"
}

func (p *parser) object(fields map[string]any, name string, at place) (map[string]any, bool) {
	v, found := fields[name]
	if !found {
		return nil, true
	}
	m, ok := v.(map[string]any)
	if !ok {
		p.fault(at.below(name), "%s: want an object", name)
	}
	return m, ok
}

// maxText bounds names, which go into logs, metrics and metadata.
const maxText = 200

func (p *parser) text(fields map[string]any, name string, at place) string {
	v, found := fields[name]
	if !found {
		return ""
	}
	s, ok := v.(string)
	if !ok || s == "" || len(s) > maxText || s != strings.TrimSpace(s) || strings.ContainsFunc(s, unicode.IsControl) {
		p.fault(at.below(name), "%s: want a text of 1 to %d bytes, without spaces around it", name, maxText)
		return ""
	}
	return s
}

func (p *parser) boolean(fields map[string]any, name string, at place) bool {
	v, found := fields[name]
	b, ok := v.(bool)
	if found && !ok {
		p.fault(at.below(name), "%s: want true or false", name)
	}
	return b
}

func (p *parser) required(fields map[string]any, name string, at place) bool {
	v, found := fields[name]
	if found && v != "required" {
		p.fault(at.below(name), "%s: want required, or nothing at all", name)
	}
	return found
}

// texts reads a list of different texts.
func (p *parser) texts(v any, at place, what string) (out []string) {
	list, ok := v.([]any)
	if !ok {
		p.fault(at, "want a list of %s", what)
		return nil
	}
	for i, item := range list {
		s, ok := item.(string)
		switch {
		case !ok || s == "" || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
			p.fault(at.below(i), "want a list of %s, each a text without spaces", what)
		case slices.Contains(out, s):
			p.fault(at.below(i), "%q is there twice", s)
		default:
			out = append(out, s)
		}
	}
	return out
}

func (p *parser) scopes(fields map[string]any, at place) []string {
	if v, found := fields["scopes"]; found {
		return p.texts(v, at.below("scopes"), "scopes")
	}
	return nil
}

func (p *parser) plans(fields map[string]any, at place) []string {
	v, found := fields["plans"]
	if !found {
		return nil
	}
	at = at.below("plans")
	plans := p.texts(v, at, "plans")
	if list, ok := v.([]any); ok && len(list) == 0 {
		p.fault(at, "plans: without any plan no caller could use the route")
	}
	for i, plan := range plans {
		if _, exists := p.spec.Plans[plan]; !exists {
			p.fault(at.below(i), "plan %q does not exist", plan)
		}
	}
	return plans
}

func (p *parser) charge(fields map[string]any, plans []string, at place) authz.Charge {
	v, found := fields["charge"]
	if !found {
		return nil
	}
	at = at.below("charge")
	m, ok := v.(map[string]any)
	if !ok {
		p.fault(at, "charge: want units by the name of the limit, such as {credits: 5}")
		return nil
	}
	limits := p.knownLimits(plans)
	out := make(authz.Charge, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		units, err := wholeNumber(m[name])
		switch {
		case err != nil:
			p.fault(at.below(name), "charge of %q: %v", name, err)
		case !limits[name]:
			p.fault(at.below(name), "charge: %s has a limit %q", noPlan(plans), name)
		}
		out[name] = units
	}
	return out
}

func noPlan(plans []string) string {
	if len(plans) == 0 {
		return "no plan"
	}
	return "none of the plans " + strings.Join(plans, ", ")
}

// wholeNumber returns a number from 0 to authz.MaxCharge, which may be written as 5.0.
func wholeNumber(v any) (int64, error) {
	n := int64(-1)
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			n = i
		} else if f, err := v.Float64(); err == nil && f >= 0 && f < float64(authz.MaxCharge) && f == math.Trunc(f) {
			n = int64(f)
		}
	case int64:
		n = v
	case int:
		n = int64(v)
	}
	if n < 0 || n > authz.MaxCharge {
		return 0, fmt.Errorf("want a whole number from 0 to %d", authz.MaxCharge)
	}
	return n, nil
}

// usual are the methods of the IANA registry (RFC 9110 section 16.1.2) that HTTP APIs use, and PURGE, which caches know.
var usual = []string{
	"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY", "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN",
	"CHECKOUT", "COPY", "LABEL", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE",
	"ORDERPATCH", "PRI", "PROPFIND", "PROPPATCH", "REBIND", "REPORT", "SEARCH", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE",
	"UPDATEREDIRECTREF", "VERSION-CONTROL", "PURGE",
}

func (p *parser) methods(match map[string]any, at place) methods {
	v, found := match["methods"]
	if !found {
		return nil
	}
	at = at.below("methods")
	list := p.texts(v, at, "methods")
	if l, ok := v.([]any); ok && len(l) == 0 {
		p.fault(at, "methods: an empty list matches nothing; without methods the route is for all methods")
	}
	for i, m := range list {
		if !slices.Contains(usual, m) {
			p.fault(at.below(i), "%q is no method%s", m, hint(m, usual[:7]))
		}
	}
	return list
}

func (p *parser) hosts(match map[string]any, at place) hosts {
	v, found := match["hosts"]
	if !found {
		return nil
	}
	at = at.below("hosts")
	list := p.texts(v, at, "hosts")
	if l, ok := v.([]any); ok && len(l) == 0 {
		p.fault(at, "hosts: an empty list matches nothing; without hosts the route is for all hosts")
	}
	out := make(hosts, len(list))
	for i, h := range list {
		out[i] = strings.ToLower(h)
		if err := checkHost(out[i]); err != nil {
			p.fault(at.below(i), "host %q: %v", h, err)
		}
		if slices.Contains(out[:i], out[i]) {
			p.fault(at.below(i), "host %q is there twice", h)
		}
	}
	return out
}

func checkHost(h string) error {
	name := strings.TrimPrefix(h, "*.")
	switch {
	case !isASCII(h):
		return errors.New("write it in Punycode, as browsers send it: xn--…")
	case strings.Contains(h, "/"):
		return errors.New("write the host alone, without scheme and path")
	case strings.HasPrefix(h, "."):
		return fmt.Errorf("write *%s for every name below it", h)
	case name == "" || strings.Contains(name, "*"):
		return errors.New("a star stands for the first labels, as in *.example.com; without hosts the route is for all hosts")
	case bareHost(h) != h:
		return errors.New("write it without a port and without a dot at the end")
	}
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-._") != "" || strings.Contains(name, "..") {
		if address, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(h, "["), "]")); err == nil && h == "["+address.String()+"]" {
			return nil
		}
		return errors.New("want a name such as api.example.com, or an IPv6 address in its shortest form, such as [2001:db8::1]")
	}
	return nil
}

// choices are the values of a setting. The first is the default.
type choices []string

func (p *parser) setting(fields map[string]any, name string, at place, c choices) string {
	v, found := fields[name]
	if !found {
		return c[0]
	}
	s, ok := v.(string)
	if !ok || !slices.Contains(c, s) {
		p.fault(at.below(name), "%s: want %s", name, strings.Join(c[:len(c)-1], ", ")+" or "+c[len(c)-1])
	}
	return s
}

func (p *parser) parsePaths(v any) paths {
	at := place{at: []any{"paths"}}
	fields, ok := v.(map[string]any)
	if !ok && v != nil {
		p.fault(at, "paths: want an object")
		return paths{}
	}
	p.known(fields, at, "matrix", "case", "encoded_slash", "repeated_slash", "trailing_slash", "extension")
	matrix := p.setting(fields, "matrix", at, choices{"refuse", "strip", "keep"})
	repeated := p.setting(fields, "repeated_slash", at, choices{"merge", "refuse", "keep"})
	return paths{
		stripMatrix: matrix == "strip", keepMatrix: matrix == "keep",
		exactCase:        p.setting(fields, "case", at, choices{"fold", "exact"}) == "exact",
		keepEncodedSlash: p.setting(fields, "encoded_slash", at, choices{"refuse", "keep"}) == "keep",
		refuseRepeated:   repeated == "refuse", keepEmpty: repeated == "keep",
		exactTrailing:   p.setting(fields, "trailing_slash", at, choices{"ignore", "exact"}) == "exact",
		ignoreExtension: p.setting(fields, "extension", at, choices{"exact", "ignore"}) == "ignore",
	}
}

// parseUnmatched checks data.tollkeeper.unmatched, which the policies read.
func (p *parser) parseUnmatched(v any) {
	if v == nil {
		return
	}
	p.setting(map[string]any{"unmatched": v}, "unmatched", place{}, choices{"charge", "allow", "deny"})
}
