package doctor_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor"
)

func TestRun_ReportsEachCheck(t *testing.T) {
	well := func(context.Context) error { return nil }
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
}

func TestRun_StopsWithItsContext(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if r := doctor.Run(ended, []doctor.Check{{Run: func(context.Context) error { return nil }}}); r.OK {
		t.Errorf("the context has ended, and the report is ok: %+v", r)
	}
	if (doctor.Report{}).OK {
		t.Error("the zero report is ok")
	}
}
