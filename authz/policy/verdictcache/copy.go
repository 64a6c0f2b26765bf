package verdictcache

import (
	"encoding/json"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// copier copies verdicts and adds up the size of the copies. Cached verdicts must be copies: a text that is part of a request
// would keep the whole message in memory.
type copier struct{ size int } // bytes

// Estimated sizes in bytes, without texts.
const (
	verdictSize  = 512 // a verdict, and an entry of the cache
	itemSize     = 32  // a string or an interface in a list
	mapEntrySize = 64
)

// verdict copies a verdict. The copy shares nothing with the request or with the policy's values.
func (c *copier) verdict(v authz.Verdict) authz.Verdict {
	c.size += verdictSize
	v.Reason = authz.Reason(c.text(string(v.Reason)))
	v.Detail = c.text(v.Detail)
	v.Headers = c.pairs(v.Headers)
	v.ResponseHeaders = c.pairs(v.ResponseHeaders)
	v.SetQueryParameters = c.pairs(v.SetQueryParameters)
	v.RemoveRequestHeaders = c.texts(v.RemoveRequestHeaders)
	v.RemoveQueryParameters = c.texts(v.RemoveQueryParameters)
	if v.Body != nil {
		body := c.text(*v.Body)
		v.Body = &body
	}
	if v.Metadata != nil {
		v.Metadata = c.value(v.Metadata).(map[string]any)
	}
	if v.Charge != nil {
		charge := make(authz.Charge, len(v.Charge))
		for name, units := range v.Charge {
			charge[c.text(name)] = units
			c.size += mapEntrySize
		}
		v.Charge = charge
	}
	return v
}

func (c *copier) text(s string) string {
	c.size += len(s)
	return strings.Clone(s)
}

func (c *copier) texts(in []string) []string {
	if in == nil {
		return nil
	}
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = c.text(s)
		c.size += itemSize
	}
	return out
}

func (c *copier) pairs(in []authz.Header) []authz.Header {
	if in == nil {
		return nil
	}
	out := make([]authz.Header, len(in))
	for i, h := range in {
		out[i] = authz.Header{Name: c.text(h.Name), Value: c.text(h.Value)}
		c.size += itemSize
	}
	return out
}

// value copies a JSON value.
func (c *copier) value(v any) any {
	c.size += itemSize
	switch v := v.(type) {
	case string:
		return c.text(v)
	case json.Number:
		return json.Number(c.text(string(v)))
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = c.value(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name := range v {
			out[c.text(name)] = c.value(v[name])
			c.size += mapEntrySize
		}
		return out
	}
	return v // a Go number, a boolean or null
}
