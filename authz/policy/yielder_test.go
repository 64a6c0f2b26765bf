package policy

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestALongEvaluationRests counts rests by the clock, which stands still in a bubble while anybody works.
func TestALongEvaluationRests(t *testing.T) {
	for name, c := range map[string]struct {
		steps string
		rests bool
	}{"short": {"20", false}, "long": {"20000", true}} {
		t.Run(name, func(t *testing.T) {
			p := mustLoad(t, module(`allow if { every i in numbers.range(1, `+c.steps+`) { i + 1 > 0 } }`), Options{})
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				if v := mustDecide(t, p, get("/"), goodFacts()); !v.Allowed {
					t.Error("denied")
				}
				if rested := time.Since(began); (rested > 0) != c.rests || rested > time.Second {
					t.Errorf("rested %v", rested)
				}
			})
		})
	}
}
