package apikey

import (
	"encoding/json"
	"testing"
)

// TestMeta_MergePatch has the cases of RFC 7396, appendix A, that are objects.
func TestMeta_MergePatch(t *testing.T) {
	for _, c := range []struct{ meta, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `null`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`null`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"a":"b"}`, `{}`, `{"a":"b"}`},
	} {
		var meta, patch map[string]any
		if json.Unmarshal([]byte(c.meta), &meta) != nil || json.Unmarshal([]byte(c.patch), &patch) != nil {
			t.Fatal(c)
		}
		got, _ := json.Marshal(merge(meta, patch))
		before, _ := json.Marshal(meta)
		if string(got) != c.want || string(before) != c.meta {
			t.Errorf("%s and %s is %s, want %s; it was made %s", c.meta, c.patch, got, c.want, before)
		}
	}
}

func TestMeta_SubscriptionEnds(t *testing.T) {
	for _, good := range []any{nil, "2030-01-31T23:59:59Z", "2030-01-31T23:59:59.5+02:00"} {
		if err := CheckMeta(map[string]any{MetaSubscriptionEnds: good, "other": "2030"}); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for _, bad := range []any{"2030-01-31", "", "2030-01-31T23:59:59", "soon", "2030-02-30T00:00:00Z", "2300-01-01T00:00:00Z", 1.9e18, true, []any{}, map[string]any{}} {
		if CheckMeta(map[string]any{MetaSubscriptionEnds: bad}) == nil {
			t.Errorf("%v passes", bad)
		}
	}
}
