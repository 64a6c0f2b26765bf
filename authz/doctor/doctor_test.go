package doctor_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

func well(context.Context) error { return nil }

func TestRun(t *testing.T) {
	wrong := func(context.Context) error { return errors.New("it is broken") }
	for name, c := range map[string]struct {
		checks []doctor.Check
		want   []doctor.State
		ok     bool
	}{
		"nothing":          {nil, nil, false},
		"all well":         {[]doctor.Check{{Run: well}, {Run: well, Guards: true}}, []doctor.State{"ok", "ok"}, true},
		"one wrong":        {[]doctor.Check{{Run: wrong}, {Run: well}}, []doctor.State{"wrong", "ok"}, false},
		"a guard is wrong": {[]doctor.Check{{Run: well}, {Run: wrong, Guards: true}, {Run: well}}, []doctor.State{"ok", "wrong", "skipped"}, false},
		"a check panics":   {[]doctor.Check{{Run: func(context.Context) error { panic("oh") }}, {Run: well}}, []doctor.State{"wrong", "ok"}, false},
		"not a check":      {[]doctor.Check{{}}, []doctor.State{"wrong"}, false},
	} {
		r := doctor.Run(t.Context(), c.checks)
		var got []doctor.State
		for _, f := range r.Findings {
			got = append(got, f.State)
			if (f.State == doctor.StateOK) != (f.Wrong == "") {
				t.Errorf("%s: %+v", name, f)
			}
		}
		if !slices.Equal(got, c.want) || r.OK != c.ok {
			t.Errorf("%s: %v, ok %v", name, got, r.OK)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if r := doctor.Run(gone, []doctor.Check{{Run: well}}); r.OK {
		t.Errorf("nobody waited, and all was well: %+v", r)
	}
	if (doctor.Report{}).OK {
		t.Error("the zero report is ok")
	}
}

// TestLedgerKnowsTheFile checks that every part of the file is looked at, in the order that the file wants.
func TestLedgerKnowsTheFile(t *testing.T) {
	db, err := bolt.Open(filepath.Join(t.TempDir(), "tollkeeper.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	checks := doctor.Ledger(db)
	var names []string
	for _, c := range checks {
		names = append(names, c.Name)
		if c.Looks == "" || c.Mend == "" {
			t.Errorf("%q does not say what it looks at, or how to mend it", c.Name)
		}
	}
	if !slices.Equal(names, bolt.Parts()) {
		t.Errorf("the checks are %v, the parts of the file %v", names, bolt.Parts())
	}
	if r := doctor.Run(t.Context(), checks); !r.OK {
		t.Errorf("a new file: %+v", r)
	}
	if err := db.CheckPart(t.Context(), "nothing"); err == nil {
		t.Error("a part that is not there is well")
	}
}
