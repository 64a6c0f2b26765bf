package bolt

import (
	"bytes"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
)

// Until format 2, accounts and keys were JSON, and a digest led to the id of a key. Open rewrites them, in several transactions: a
// million keys in one would take gigabytes of memory. Each transaction writes down how far it came, so a crash in between costs
// nothing, and the next Open goes on from there. Nothing reads keys before it is done.

// metaRecords, in bucketMeta, says how far the records of keys and accounts are rewritten: recordsDone, or the stage and the last
// key that is done. A file of format 1 does not have it.
var (
	metaRecords = []byte("records")
	recordsDone = []byte("2")
)

// isCurrent reports whether a file of a format that we read needs no upgrade.
func isCurrent(tx *bbolt.Tx) bool {
	return bytes.Equal(tx.Bucket([]byte(bucketMeta)).Get(metaRecords), recordsDone)
}

// checkCurrent refuses a file that this version cannot read without an upgrade, and says whether Open would make that.
func checkCurrent(tx *bbolt.Tx) error {
	if err := checkFormat(tx); err != nil || isCurrent(tx) {
		return err
	}
	if _, _, err := upgradeStage(tx.Bucket([]byte(bucketMeta)).Get(metaRecords)); err != nil {
		return err
	}
	if !expiriesIndexed(tx) {
		if _, err := expiriesOf(tx); err != nil {
			return err
		}
	}
	if err := eachDigest(tx, func(apikey.Digest) {}); err != nil {
		return err
	}
	return authz.Errorf(authz.KindConflict, "an older version wrote the file: start the server once, which upgrades it")
}

// upgradeChunk is how many records are rewritten in one transaction.
const upgradeChunk = 20_000

// upgradeFill is how full the rewritten pages become. bbolt's default of half makes the file larger than it was.
const upgradeFill = 0.8

// stages are the buckets to rewrite, in this order: a key is read by its id until its digest has it. A record that cannot be read is
// replaced by one that cannot be read either: its key is unavailable, as it was, and all others work.
var stages = []struct {
	code    byte
	bucket  string
	rewrite func(tx *bbolt.Tx, key, value []byte) []byte
}{
	{'a', bucketAccounts, upgradeAccount},
	{'d', bucketDigests, upgradeDigest},
	{'k', bucketKeys, upgradeKey},
}

// unreadable is no keyrecord.
var unreadable = []byte{}

func upgradeAccount(_ *bbolt.Tx, id, text []byte) []byte {
	a, err := decode[apikey.Account](text)
	if err != nil || a.ID != string(id) {
		return unreadable
	}
	return keyrecord.AppendAccount(nil, a)
}

func upgradeDigest(tx *bbolt.Tx, digest, id []byte) []byte {
	k, err := decode[apikey.Key](tx.Bucket([]byte(bucketKeys)).Get(id))
	if err != nil || k == nil || k.ID != string(id) || !bytes.Equal(k.Digest[:], digest) {
		return unreadable
	}
	return keyrecord.AppendKey(nil, k)
}

func upgradeKey(_ *bbolt.Tx, id, text []byte) []byte {
	k, err := decode[struct {
		ID     string
		Digest apikey.Digest
	}](text)
	if err != nil || k.ID != string(id) || k.Digest == (apikey.Digest{}) {
		return unreadable
	}
	return k.Digest[:]
}

// upgradeRecords rewrites the next records of an older file, and reports whether to call it again.
func upgradeRecords(w *write) (more bool, err error) { return upgradeChunkOf(w, upgradeChunk) }

func upgradeChunkOf(w *write, chunk int) (more bool, err error) {
	at := bytes.Clone(w.get(bucketMeta, metaRecords))
	if bytes.Equal(at, recordsDone) {
		return false, nil
	}
	stage, after, err := upgradeStage(at)
	if err != nil {
		return false, err
	}
	last, err := upgradeSome(w, stage, after, chunk)
	if err != nil {
		return false, err
	}
	next := recordsDone
	switch {
	case last != nil:
		next = append([]byte{stages[stage].code}, last...)
	case stage+1 < len(stages):
		next = []byte{stages[stage+1].code}
	}
	return true, w.put(bucketMeta, metaRecords, next)
}

// upgradeStage is the stage that an upgrade has reached, and the last key of it that is done.
func upgradeStage(at []byte) (stage int, after []byte, err error) {
	if len(at) == 0 {
		return 0, nil, nil
	}
	for stage, s := range stages {
		if s.code == at[0] {
			return stage, at[1:], nil
		}
	}
	return 0, nil, damaged("its records are upgraded until %q", at)
}

// upgradeSome rewrites the records of a stage after a key, at most a chunk of them. It returns the key of the last one, nil if there
// are no more.
func upgradeSome(w *write, stage int, after []byte, chunk int) (last []byte, err error) {
	s := stages[stage]
	b := w.tx.Bucket([]byte(s.bucket))
	b.FillPercent = upgradeFill
	keys, values := [][]byte(nil), [][]byte(nil)
	c := b.Cursor()
	k, v := c.Seek(after)
	if len(after) > 0 && bytes.Equal(k, after) {
		k, v = c.Next()
	}
	for ; k != nil && len(keys) < chunk; k, v = c.Next() {
		keys, values = append(keys, bytes.Clone(k)), append(values, s.rewrite(w.tx, k, v))
	}
	w.wrote = true
	for i := range keys { // after the cursor has gone: a write would lead it astray
		if err := b.Put(keys[i], values[i]); err != nil {
			return nil, authz.Errorf(authz.KindUnavailable, "upgrading %q: %w", s.bucket, err)
		}
	}
	dropPages(w.tx)
	if len(keys) < chunk {
		return nil, nil
	}
	return keys[len(keys)-1], nil
}
