package quota_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// wideRecord has something in every field.
func wideRecord() *quota.Record {
	month := quota.Period{Start: time.Date(2024, 5, 1, 0, 0, 0, 0, time.UTC), End: time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC)}
	return &quota.Record{
		Counts: []quota.Count{
			{Name: "credits", Book: quota.Book{Prepaid: &quota.Page{
				Credited: 1 << 52, Granted: 9, Spent: -1, Returned: 3, Held: map[quota.NodeID]quota.Holding{"b": {Units: 4, Spent: -2}, "a": {Units: 3}}, Ceiling: 12,
			}}},
			{Name: "month", Book: quota.Book{
				Current:  &quota.Page{Period: month, Was: quota.Period{Start: month.End, End: month.End.Add(time.Hour)}, Granted: 7, Spent: 7, Overage: 2, Ceiling: 9, Forgiven: 1},
				Previous: &quota.Page{Period: quota.Period{Start: time.Unix(-100, 0).UTC(), End: time.Unix(0, 0).UTC()}},
			}},
		},
		Seen: map[quota.NodeID]quota.Seen{
			"a": {Seq: 1 << 60, At: noon(), Granted: []quota.Granted{{Count: "month", Start: month.Start, Units: 5}, {Count: "credits", Units: 1}}},
			"c": {At: noon()},
		},
	}
}

func TestRecord_BinaryForm(t *testing.T) {
	for name, r := range map[string]*quota.Record{"empty": {}, "wide": wideRecord()} {
		text, err := r.AppendBinary([]byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.TrimPrefix(text, []byte("before"))
		got, err := quota.DecodeRecord(text)
		if err != nil || marshal(t, got) != marshal(t, r) {
			t.Fatalf("%s: %v\n%s, want\n%s", name, err, marshal(t, got), marshal(t, r))
		}
		for n := range text {
			if _, err := quota.DecodeRecord(text[:n]); authz.KindOf(err) != authz.KindUnavailable || err == nil {
				t.Errorf("%s: cut to %d of %d bytes: %v", name, n, len(text), err)
			}
		}
		if _, err := quota.DecodeRecord(append(text, 0)); err == nil {
			t.Errorf("%s: a byte too many is read", name)
		}
	}
}

// FuzzDecodeRecord reads anything. What it can read it writes again in the same way.
func FuzzDecodeRecord(f *testing.F) {
	for _, r := range []*quota.Record{{}, wideRecord()} {
		text, err := r.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := quota.DecodeRecord(text)
		if err != nil {
			return
		}
		again, err := r.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		second, err := quota.DecodeRecord(again)
		if err != nil || marshal(t, second) != marshal(t, r) {
			t.Fatalf("%v\n%s, was\n%s", err, marshal(t, second), marshal(t, r))
		}
	})
}

// FuzzHolderID_Bucket looks for a count that leads back to another bucket.
func FuzzHolderID_Bucket(f *testing.F) {
	f.Add("key", "k", "limit", "requests", "month", "Europe/Berlin", 3)
	f.Add("", "", "", "", "", "", 0)
	f.Fuzz(func(t *testing.T, per, holder, limit, unit, window, zone string, anchor int) {
		b := quota.Bucket{Per: authz.Per(per), Holder: holder, Limit: limit, Unit: unit, Window: authz.Window(window), Zone: zone, Anchor: int(byte(anchor))}
		got, err := b.HolderID().Bucket(b.CountKey())
		if err != nil || got != b {
			t.Fatalf("%+v, %v, want %+v", got, err, b)
		}
		if got, err := b.HolderID().Bucket(limit); err == nil && got.CountKey() != limit {
			t.Fatalf("%q leads to %+v", limit, got)
		}
	})
}

// BenchmarkRecord reads, changes and writes the record of a caller of two limits.
func BenchmarkRecord(b *testing.B) {
	month := authz.Limit{Name: "monthly", Units: 100_000, Unit: "requests", Window: authz.WindowMonth, Per: authz.PerAccount}
	credits := authz.Limit{Name: "credits", Units: 100_000, Unit: "requests", Window: authz.WindowNone, Per: authz.PerAccount}
	r := &quota.Record{}
	seq := uint64(0)
	lease := func() {
		seq++
		q := quota.LeaseRequest{Node: "host-ABCDEFGHIJ", Seq: seq, Parts: []quota.LeasePart{
			{Count: quota.BucketOf(&month, authz.Holder{}).CountKey(), Limit: month, Want: 10},
			{Count: quota.BucketOf(&credits, authz.Holder{}).CountKey(), Limit: credits, Want: 10},
		}}
		if a := r.Lease(&q, at(noon())); a.Err != nil {
			b.Fatal(a.Err)
		}
	}
	lease()
	text, _ := r.AppendBinary(nil)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if r, err = quota.DecodeRecord(text); err != nil {
			b.Fatal(err)
		}
		lease()
		if text, err = r.AppendBinary(text[:0]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(text)), "bytes")
}
