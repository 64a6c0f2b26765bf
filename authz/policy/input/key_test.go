package input

import (
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input/inputtest"
)

func mustKey(t testing.TB, refs *Refs, r *authz.Request, f *authz.Facts) string {
	t.Helper()
	var k Key
	if !k.Fill(refs, r, f) {
		t.Fatal("no key")
	}
	return string(k.Bytes())
}

// TestKey_OneDocumentEach checks that two documents have one key only if they are equal, and that a document always has
// the same key.
func TestKey_OneDocumentEach(t *testing.T) {
	d := inputtest.New(5)
	same := 0
	for range 20_000 {
		r, f := d.Request(), d.Facts()
		key1, doc1 := mustKey(t, everything, r, f), mustValue(t, everything, r, f).String()
		if again := mustKey(t, everything, r, f); again != key1 {
			t.Fatalf("one document has the keys %q and %q", key1, again)
		}
		d.Nudge(r, f)
		key2, doc2 := mustKey(t, everything, r, f), mustValue(t, everything, r, f).String()
		if key1 == key2 {
			same++
			if doc1 != doc2 {
				t.Fatalf("one key for\n%s\n%s", doc1, doc2)
			}
		}
	}
	if same == 0 || same > 10_000 {
		t.Errorf("%d of 20000 changes changed nothing: the test is of no use", same)
	}
}

// TestKey_TextsCannotPassForMarks uses texts that would pass for several fields if the key did not say how long they are.
func TestKey_TextsCannotPassForMarks(t *testing.T) {
	keyOf := func(extensions map[string]string) string {
		return mustKey(t, everything, &authz.Request{ContextExtensions: extensions}, nil)
	}
	two := keyOf(map[string]string{"a": "x", "b": "y"})
	for _, one := range []string{`x:a"y`, "x:\x01a\"\x01y", `x":a"y`} {
		if keyOf(map[string]string{"b": one}) == two {
			t.Errorf("%q passes for two", one)
		}
	}
}

func TestKey_NoneForLongDocuments(t *testing.T) {
	ones := make([]any, MaxKey)
	for i := range ones {
		ones[i] = 1
	}
	for name, body := range map[string]any{"text": strings.Repeat("x", MaxKey), "numbers": ones, "no JSON": func() {}} {
		var k Key
		if r := (&authz.Request{Body: authz.Body{Parsed: body}}); k.Fill(everything, r, nil) {
			t.Errorf("%s: a key of %d bytes", name, len(k.Bytes()))
		}
		if !k.Fill(everything, inputtest.Get("/"), nil) {
			t.Errorf("%s: no key for the next request", name)
		}
	}
}
