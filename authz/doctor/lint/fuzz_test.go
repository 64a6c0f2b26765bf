package lint_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint"
)

// No file makes doctor panic or run forever with any subject, and every report can be written.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/base/*.yaml", "../../../envoy/*.yaml"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			raw, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw, byte(0))
		}
	}
	for _, text := range []string{
		"", "{", "[]", "null", "a: &a [*a]", "&a [&b [*b, *b], *b]", "a: &a\n  b: *a\n", "{\"static_resources\": {\"listeners\": [{}]}}",
		"static_resources: {listeners: [{filter_chains: [{filters: [{typed_config: {\"@type\": x}}]}]}]}",
		"configs: [{\"@type\": envoy.admin.v3.ListenersConfigDump, dynamic_listeners: [null, 1, {active_state: []}]}]",
		"apiVersion: v1\nkind: List\nitems: [{kind: List, apiVersion: v1, items: []}]\n", "kind: ConfigMap\napiVersion: v1\ndata: {mesh: \"kind: ConfigMap\"}",
		"xds: {a: {configs: []}}", "? [complex]\n: key\n", "!!binary |\n  a", "a: !!timestamp 2001-01-01", "a: .nan\nb: 0x7f\nc: 1e999",
	} {
		for about := range byte(5) {
			f.Add([]byte(text), about)
		}
	}
	subjects := []lint.Subject{lint.AnySubject, lint.EnvoySubject, lint.IstioSubject, lint.EGSubject, lint.OwnSubject}
	f.Fuzz(func(t *testing.T, raw []byte, about byte) {
		if len(raw) > 64<<10 {
			return
		}
		file := lint.Parse("fuzz.yaml", raw, subjects[int(about)%len(subjects)])
		r, err := lint.Run([]*lint.File{file, file}, lint.Options{EnvoyVersion: "1.40.0", Cluster: ""})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.WriteText(io.Discard); err != nil {
			t.Error(err)
		}
		if err := r.WriteSARIF(io.Discard, "test"); err != nil {
			t.Error(err)
		}
	})
}

// A small file that expands to a large one is refused before it is expanded.
func TestParse_BoundsItsWork(t *testing.T) {
	bomb := []byte("a: &a [x,x,x,x,x,x,x,x,x,x]\n")
	for c := 'b'; c < 'k'; c++ {
		prev := string(c - 1)
		bomb = append(bomb, []byte(string(c)+": &"+string(c)+" [*"+prev+",*"+prev+",*"+prev+",*"+prev+",*"+prev+",*"+prev+",*"+prev+",*"+prev+",*"+prev+",*"+prev+"]\n")...)
	}
	bomb = append(bomb, []byte("static_resources: *j\n")...)
	r, err := lint.Run([]*lint.File{lint.Parse("bomb.yaml", bomb, lint.EnvoySubject)}, lint.Options{})
	if err != nil || r.Worst() != lint.Error {
		t.Errorf("%v, %+v", err, r)
	}
	if f := lint.Parse("large.yaml", make([]byte, lint.MaxBytes+1), lint.AnySubject); !f.Known() {
		t.Error("a file that is too large is silently ignored")
	}
}

// Many faults of one kind neither make the report endless nor hide worse ones.
func TestReport_IsBounded(t *testing.T) {
	var text strings.Builder
	for i := range 50 { // 1225 pairs
		fmt.Fprintf(&text, "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p%d, namespace: app}\n"+
			"spec: {action: CUSTOM, provider: {name: q%d}, rules: [{}]}\n", i, i)
	}
	r, err := lint.Run([]*lint.File{lint.Parse("many.yaml", []byte(text.String()), lint.AnySubject)}, lint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	listed, last := 0, ""
	for _, f := range r.Findings {
		if f.Rule == "TK151" {
			listed++
			if strings.HasPrefix(f.Wrong, "only ") {
				last = f.Wrong
			}
		}
	}
	if listed != 501 || !strings.HasPrefix(last, "only 500 ") || r.Worst() != lint.Error {
		t.Errorf("%d findings, the last is %q", listed, last)
	}
}
