package main

import (
	"testing"
	"time"
)

func TestSpan_Sweeping(t *testing.T) {
	s := span{warmUp: time.Second, measured: 3 * time.Second}
	busy, zipf, street, alike := load{}, load{cold: true, skew: 1.1}, load{cold: true, skew: 1.1}, load{cold: true}
	for name, tc := range map[string]struct {
		l, before *load
		want      span
	}{
		"busy callers":           {&busy, &zipf, s},
		"cold callers":           {&street, nil, span{sweep, sweep}},
		"after busy ones":        {&street, &busy, span{sweep, sweep}},
		"after the same callers": {&zipf, &street, span{time.Second, sweep}},
		"after others":           {&alike, &zipf, span{sweep, sweep}},
	} {
		if got := s.sweeping(tc.l, tc.before); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	quick := span{warmUp: time.Second / 2, measured: time.Second / 2}
	if got := quick.sweeping(&street, nil); got != quick {
		t.Errorf("quick: %v", got)
	}
}
