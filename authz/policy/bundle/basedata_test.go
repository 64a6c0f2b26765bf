package bundle

import (
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

// TestBaseData_ReadsAsOPA compares lookups with OPA's own store.
func TestBaseData_ReadsAsOPA(t *testing.T) {
	root := map[string]any{"list": []any{"a", "b"}, "object": map[string]any{"1": "c", "1.0": "d"}, "text": "e"}
	ours, err := newBaseData(root)
	if err != nil {
		t.Fatal(err)
	}
	theirs := inmem.NewFromObjectWithOpts(root, inmem.OptReturnASTValuesOnRead(true))
	transaction, err := theirs.NewTransaction(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, parent := range []string{"list", "object", "text", "none"} {
		for _, name := range []string{"0", "1", "2", "-1", "-0", "+1", "01", "1.0", "1.", "1e0", "", "x", "99999999999999999999"} {
			path := storage.Path{parent, name}
			got, err := ours.Read(t.Context(), snapshot{}, path)
			want, wantErr := theirs.Read(t.Context(), transaction, path)
			if storage.IsNotFound(err) != storage.IsNotFound(wantErr) || err == nil && ast.Compare(got, want) != 0 {
				t.Errorf("%v: %v, %v, want %v, %v", path, got, err, want, wantErr)
			}
		}
	}
}
