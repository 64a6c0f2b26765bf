package quota

import (
	"encoding/binary"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Key is the bucket's name in a store. Each part but the last is preceded by its length, so that no two buckets have
// the same key, whatever their holders and limits are called.
func (b Bucket) Key() string {
	parts := [...]string{string(b.Per), b.Holder, b.Limit, b.Unit, string(b.Window), b.Zone}
	size := 1
	for _, part := range parts {
		size += len(part) + 2
	}
	out := make([]byte, 0, size)
	for _, part := range parts {
		out = binary.AppendUvarint(out, uint64(len(part)))
		out = append(out, part...)
	}
	return string(append(out, byte(b.Anchor)))
}

// LegacyKey is the Key of older versions, which did not tell counts apart by unit and period. No bucket has such a key now:
// after the holder came the name alone, where now comes a length.
func (b Bucket) LegacyKey() string {
	out := make([]byte, 0, len(b.Per)+len(b.Holder)+len(b.Limit)+4)
	for _, part := range []string{string(b.Per), b.Holder} {
		out = binary.AppendUvarint(out, uint64(len(part)))
		out = append(out, part...)
	}
	return string(append(out, b.Limit...))
}

// CountKey is the key of the bucket without its holder: the Limit.Count of the limits that are counted there.
func (b Bucket) CountKey() string {
	b.Holder = ""
	return b.Key()
}

// ParseKey is the bucket that has that key. It returns an error if none has.
func ParseKey(key string) (Bucket, error) {
	rest := key
	next := func() string {
		n, size := binary.Uvarint([]byte(rest[:min(len(rest), binary.MaxVarintLen64)]))
		if size <= 0 || uint64(len(rest)-size) < n {
			rest = ""
			return ""
		}
		part := rest[size : size+int(n)]
		rest = rest[size+int(n):]
		return part
	}
	b := Bucket{Per: authz.Per(next()), Holder: next(), Limit: next(), Unit: next(), Window: authz.Window(next()), Zone: next()}
	if len(rest) == 1 {
		b.Anchor = int(rest[0])
	}
	if b.Key() != key {
		return Bucket{}, authz.Errorf(authz.KindInvalid, "%q is not the key of a bucket", key)
	}
	return b, nil
}

// Bucket is the bucket of a count in the holder's record. It returns an error if the name is not that of such a count.
func (h HolderID) Bucket(count string) (Bucket, error) {
	b, err := ParseKey(count)
	if err == nil && (b.Per != h.Per || b.Holder != "") {
		err = authz.Errorf(authz.KindInvalid, "%q is not a count of a holder per %s", count, h.Per)
	}
	if err != nil {
		return Bucket{}, err
	}
	b.Holder = h.Holder
	return b, nil
}

// HolderOf is the holder whose use of the limit is counted.
func HolderOf(l *authz.Limit, h authz.Holder) HolderID {
	if l.Per == authz.PerAccount {
		return HolderID{l.Per, h.Account}
	}
	return HolderID{l.Per, h.Key}
}

// BucketOf is the bucket in which the holder's use of the limit is counted.
func BucketOf(l *authz.Limit, h authz.Holder) Bucket {
	b := Bucket{Per: l.Per, Holder: HolderOf(l, h).Holder, Limit: l.Name, Unit: l.Unit, Window: l.Window}
	switch l.Window {
	case authz.WindowMonth:
		b.Zone, b.Anchor = zoneName(l), max(l.Anchor, 1)-1
	case authz.WindowDay:
		b.Zone = zoneName(l)
	}
	return b
}

// zoneName is the name of the limit's zone, "" for UTC.
func zoneName(l *authz.Limit) string {
	if l.Zone == nil || l.Zone == time.UTC {
		return ""
	}
	return l.Zone.String()
}
