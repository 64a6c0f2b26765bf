package quota

import (
	"slices"
	"sync"
	"testing"
	"time"
)

func TestClock_Jumps(t *testing.T) {
	const decade = 10 * 365 * 24 * time.Hour
	began := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		steps []time.Duration // pairs: how much time goes by, and by how much the wall clock jumps besides
		want  []time.Duration // after each pair: how far the clock is from where it began, less the time that went by
		told  []bool          // whether the jumps that were reported were believed
	}{
		{"goes on", []time.Duration{time.Second, 0, time.Hour, 0, decade, 0}, []time.Duration{0, 0, 0}, nil},
		{"small steps are followed", []time.Duration{time.Hour, 40 * time.Second, time.Hour, -time.Minute}, []time.Duration{40 * time.Second, -20 * time.Second}, nil},
		{"many small steps are followed", []time.Duration{time.Hour, time.Minute, time.Hour, time.Minute, time.Hour, time.Minute},
			[]time.Duration{time.Minute, 2 * time.Minute, 3 * time.Minute}, nil},
		{"ten years ahead and back", []time.Duration{time.Second, decade, time.Minute, 0, time.Minute, -decade, 2 * time.Minute, 0},
			[]time.Duration{0, 0, 0, 0}, []bool{false, false}},
		{"ten years ahead for long", []time.Duration{time.Second, decade, 6 * time.Minute, 0, time.Hour, -decade, 6 * time.Minute, 0},
			[]time.Duration{0, decade, decade, 0}, []bool{false, true, false, true}},
		{"an hour back for long", []time.Duration{time.Second, -time.Hour, 5 * time.Minute, 0}, []time.Duration{0, -time.Hour}, []bool{false, true}},
		{"never in one place", []time.Duration{time.Second, decade, 4 * time.Minute, time.Hour, 4 * time.Minute, time.Hour, 4 * time.Minute, time.Hour},
			[]time.Duration{0, 0, 0, 0}, []bool{false, false, false, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var ran, off time.Duration
			var told []bool
			clock := newClock(func() (time.Time, time.Duration) { return began.Add(ran + off), ran },
				func(_ time.Duration, believed bool) { told = append(told, believed) })
			for i, want := range c.want {
				ran += c.steps[2*i]
				off += c.steps[2*i+1]
				if got := clock.Now().Sub(began) - ran; got != want {
					t.Errorf("step %d: %v off, want %v", i, got, want)
				}
				if doubt := clock.Doubt(); (doubt != "") != (want != off) {
					t.Errorf("step %d: doubt %q", i, doubt)
				}
			}
			if !slices.Equal(told, c.told) {
				t.Errorf("told %v, want %v", told, c.told)
			}
		})
	}
}

// TestClock_ReadByMany reads the real clocks from many goroutines.
func TestClock_ReadByMany(t *testing.T) {
	clock := NewClock(func(jump time.Duration, _ bool) { t.Errorf("a jump of %v", jump) })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10_000 {
				if d := time.Since(clock.Now()); d < 0 {
					t.Errorf("ahead by %v", d)
				}
			}
		})
	}
	wg.Wait()
}

// TestClock_NeedsNoMemory: a check reads the clock several times.
func TestClock_NeedsNoMemory(t *testing.T) {
	c := NewClock(func(time.Duration, bool) {})
	if n := testing.AllocsPerRun(100, func() { c.Now() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
