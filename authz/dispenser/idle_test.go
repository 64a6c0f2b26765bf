package dispenser

import (
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

func TestLimitTable_PlansLoadedAgain(t *testing.T) {
	var table limitTable
	limit := func(zone string, units int64) *authz.Limit {
		l := &authz.Limit{Name: "monthly", Units: units, Window: authz.WindowMonth}
		if zone != "" {
			var err error
			if l.Zone, err = time.LoadLocation(zone); err != nil {
				t.Fatal(err)
			}
		}
		return l
	}
	for range 3 {
		for want, l := range []*authz.Limit{limit("", 5), limit("Europe/Berlin", 5), limit("Europe/Berlin", 6)} {
			if got := table.numberOf(l); got != want {
				t.Errorf("limit %d has number %d", want, got)
			}
		}
	}
	if got := table.limit(1); got.Units != 5 || got.Zone.String() != "Europe/Berlin" {
		t.Errorf("limit 1 is %+v", got)
	}
}
