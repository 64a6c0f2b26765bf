package apikey

import (
	"encoding/json"
	"maps"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// MetaSubscriptionEnds is the field of Meta that the shipped policies read as an instant.
const MetaSubscriptionEnds = "subscription_ends"

// CheckMeta returns an error if the shipped policies cannot read a field of Meta that they use. Without it, every request would be
// denied with policy_error, long after the mistake.
func CheckMeta(meta map[string]any) error {
	v, ok := meta[MetaSubscriptionEnds]
	if !ok || v == nil {
		return nil
	}
	text, _ := v.(string)
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.Year() < 1700 || t.Year() > 2261 { // Rego counts nanoseconds
		return authz.Errorf(authz.KindInvalid, "meta %s %s: want a time with its zone, such as 2030-01-31T23:59:59Z", MetaSubscriptionEnds, asJSON(v))
	}
	return nil
}

// merge returns meta with a merge patch (RFC 7396) applied. It changes neither.
func merge(meta, patch map[string]any) map[string]any {
	out := maps.Clone(meta)
	if out == nil {
		out = make(map[string]any, len(patch))
	}
	for name, v := range patch {
		inner, isObject := v.(map[string]any)
		switch {
		case v == nil:
			delete(out, name)
		case isObject:
			was, _ := out[name].(map[string]any)
			out[name] = orEmpty(merge(was, inner))
		default:
			out[name] = v
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func orEmpty(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

func asJSON(v any) string {
	raw, _ := json.Marshal(v)
	return string(raw)
}
