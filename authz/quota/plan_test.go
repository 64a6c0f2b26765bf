package quota_test

import (
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

func TestParsePlans_AccountLimitHasOnePeriod(t *testing.T) {
	plan := func(window string, per string) map[string]any {
		return map[string]any{"limits": map[string]any{"req": map[string]any{"units": 5, "window": window, "per": per}}}
	}
	if _, err := quota.ParsePlans(map[string]any{"a": plan("month", "account"), "b": plan("minute", "account")}); err == nil {
		t.Error("two periods for one limit of an account")
	}
	if _, err := quota.ParsePlans(map[string]any{"a": plan("month", "key"), "b": plan("minute", "key")}); err != nil {
		t.Errorf("keys do not share: %v", err)
	}
}

// TestParsePlans_WrongType: the fault says what to write, and nothing of the code.
func TestParsePlans_WrongType(t *testing.T) {
	for want, limit := range map[string]any{
		`units: want a whole number, not string`:     map[string]any{"units": "ten", "window": "day"},
		`units: want a whole number, not number 1.5`: map[string]any{"units": 1.5, "window": "day"},
		`anchor_day: want a whole number, not bool`:  map[string]any{"units": 1, "window": "month", "anchor_day": true},
		`window: want a text, not number`:            map[string]any{"units": 1, "window": 7},
		`limit: want an object, not number`:          1000,
	} {
		_, err := quota.ParsePlans(map[string]any{"free": map[string]any{"limits": map[string]any{"daily": limit}}})
		if err == nil || !strings.HasSuffix(err.Error(), `limit "daily": `+want) {
			t.Errorf("%v: %v, want %s", limit, err, want)
		}
	}
}
