package extauthz

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
)

// pluginInput is what OPA's Envoy plugin makes of a CheckRequest: its input document, or nothing if it refuses.
type pluginInput struct {
	ID           string
	CheckRequest []byte `json:"check_request"`
	SkipBody     bool   `json:"skip_request_body_parse"`
	Refused      bool
	Input        json.RawMessage
}

// ours are the fields that policies see beside the plugin's.
var ours = []string{"key", "account", "token", "quota", "revocation"}

// TestInput_IsThatOfTheEnvoyPlugin compares the whole input document with the one that the plugin gave its policy.
func TestInput_IsThatOfTheEnvoyPlugin(t *testing.T) {
	raw, err := os.ReadFile("testdata/plugin-inputs.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, 1<<20)
	seen := 0
	for lines.Scan() {
		var c pluginInput
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		seen++
		t.Run(c.ID, func(t *testing.T) {
			r := decode(string(c.CheckRequest), Options{SkipBody: c.SkipBody})
			if c.Refused {
				return // what the plugin refuses may be a denial or a fact here
			}
			// policies/README.md lists these three differences.
			if r.HTTP != nil && strings.Contains(r.HTTP.Path, "#") {
				if r.Fault == "" {
					t.Error("a path with a fragment is let through")
				}
				return
			}
			fromList := r.HTTP != nil && r.HTTP.RawHeaders && !bytes.Contains(c.Input, []byte(`"headers":{`))
			anyCase := r.HTTP != nil && r.HTTP.Headers.Get("content-type") == "APPLICATION/JSON"
			if r.Fault != "" && !fromList {
				t.Fatalf("refused, because %s: %s", r.Fault, c.Input)
			}
			if fromList {
				r.Body.Parsed, r.Body.Truncated = nil, false
			}
			if anyCase {
				r.Body.Parsed = nil
			}
			if got, want := inputOf(t, r, fromList), sortedJSON(t, c.Input); got != want {
				t.Errorf("the input is\n     %s\nwant %s", got, want)
			}
		})
	}
	if seen != 250 {
		t.Errorf("%d cases, want 250", seen)
	}
}

var withoutHeaders = regexp.MustCompile(`"headers":\{[^{}]*\},`)

// inputOf is the document that a policy sees of a request, without our own fields and, if it is asked for, without the
// headers by name.
func inputOf(t *testing.T, r *authz.Request, noHeaders bool) string {
	t.Helper()
	p, err := policy.Load(context.Background(), bundle.FS(fstest.MapFS{"p.rego": {Data: []byte("package envoy.authz\n\nallow := true\n")}}), policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var tr authz.Trace
	if _, err := p.Decide(t.Context(), r, &authz.Facts{}, &tr); err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(tr.Input, &all); err != nil {
		t.Fatal(err)
	}
	for _, name := range ours {
		delete(all, name)
	}
	if noHeaders {
		all["attributes"] = withoutHeaders.ReplaceAll(all["attributes"], nil)
	}
	rest, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return sortedJSON(t, rest)
}

// sortedJSON writes a document in one way: names in order, numbers by their value.
func sortedJSON(t *testing.T, raw []byte) string {
	t.Helper()
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(sameNumbers(v))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// sameNumbers writes numbers that are too large for JavaScript as they came, and all others by their value.
func sameNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil {
			if n := int64(f); float64(n) == f && f < 1<<53 && f > -1<<53 {
				return n
			}
			return f
		}
		return fmt.Sprint(v)
	case map[string]any:
		for k := range v {
			v[k] = sameNumbers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = sameNumbers(v[i])
		}
	}
	return v
}
