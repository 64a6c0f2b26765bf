package bundle

import (
	"testing"
	"testing/fstest"
)

const allowAll = "package envoy.authz\n\nallow := true\n"

// files makes a source of file names and contents: files("a.rego", "package a", "b.json", "{}").
func files(nameAndContent ...string) Source {
	m := fstest.MapFS{}
	for i := 0; i < len(nameAndContent); i += 2 {
		m[nameAndContent[i]] = &fstest.MapFile{Data: []byte(nameAndContent[i+1])}
	}
	return FS(m)
}

// module is a source with one module, in the package that decides by default.
func module(rules string) Source { return files("p.rego", "package envoy.authz\n\n"+rules) }

func mustCompile(t testing.TB, src Source, o Options) *Bundle {
	t.Helper()
	b, err := Compile(t.Context(), src, o)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	return b
}
