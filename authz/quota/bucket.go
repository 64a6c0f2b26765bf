// Package quota counts what callers use: plans and their limits, the periods over which they count, the durable ledger
// that grants leases, and the dispenser that serves reservations from them in memory.
package quota

import (
	"encoding/binary"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Key is the bucket's name in a store. Each part but the last is preceded by its length, so that no two buckets have
// the same key, whatever their holders and limits are called.
func (b Bucket) Key() string {
	out := make([]byte, 0, len(b.Per)+len(b.Holder)+len(b.Limit)+4)
	for _, part := range []string{string(b.Per), b.Holder} {
		out = binary.AppendUvarint(out, uint64(len(part)))
		out = append(out, part...)
	}
	return string(append(out, b.Limit...))
}

// BucketOf is the bucket in which the holder's use of the limit is counted.
func BucketOf(l *authz.Limit, h authz.Holder) Bucket {
	holder := h.Key
	if l.Per == authz.PerAccount {
		holder = h.Account
	}
	return Bucket{Per: l.Per, Holder: holder, Limit: l.Name}
}
