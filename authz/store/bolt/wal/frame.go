package wal

import (
	"encoding/binary"
	"hash/crc32"
)

// ID names the data file that a log belongs to.
type ID [16]byte

const (
	magic       = "TKwal\x00\x00\x01" // the last byte is the version of the format
	headerSize  = 44
	frameHeader = 24

	// smallBlock is the alignment of most disks, and bigBlock that of those whose blocks have 4 kB.
	smallBlock = 512
	bigBlock   = 4096

	// maxRecord bounds what a damaged length can make the reader look at.
	maxRecord = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the beginning of a segment.
type header struct {
	align uint32
	id    ID
	nonce uint64
}

func (h *header) encode(out []byte) {
	copy(out, magic)
	binary.LittleEndian.PutUint32(out[8:], h.align)
	binary.LittleEndian.PutUint32(out[12:], 0)
	copy(out[16:], h.id[:])
	binary.LittleEndian.PutUint64(out[32:], h.nonce)
	binary.LittleEndian.PutUint32(out[40:], crc32.Checksum(out[:40], castagnoli))
}

func decodeHeader(in []byte) (h header, ok bool) {
	if len(in) < headerSize || string(in[:8]) != magic || binary.LittleEndian.Uint32(in[40:]) != crc32.Checksum(in[:40], castagnoli) {
		return header{}, false
	}
	h = header{align: binary.LittleEndian.Uint32(in[8:]), id: ID(in[16:32]), nonce: binary.LittleEndian.Uint64(in[32:])}
	return h, h.align == smallBlock || h.align == bigBlock
}

// putFrame writes the frame of a record into a buffer of padded size.
func putFrame(out []byte, nonce, seq uint64, record []byte) {
	binary.LittleEndian.PutUint64(out, nonce)
	binary.LittleEndian.PutUint64(out[8:], seq)
	binary.LittleEndian.PutUint32(out[16:], uint32(len(record)))
	n := copy(out[frameHeader:], record)
	clear(out[frameHeader+n:])
	binary.LittleEndian.PutUint32(out[20:], frameSum(out, len(record)))
}

// getFrame reads the frame at the beginning of in.
func getFrame(in []byte, nonce uint64) (seq uint64, record []byte, ok bool) {
	if len(in) < frameHeader || binary.LittleEndian.Uint64(in) != nonce {
		return 0, nil, false
	}
	size := binary.LittleEndian.Uint32(in[16:])
	if size > maxRecord || int(size) > len(in)-frameHeader || binary.LittleEndian.Uint32(in[20:]) != frameSum(in, int(size)) {
		return 0, nil, false
	}
	return binary.LittleEndian.Uint64(in[8:]), in[frameHeader : frameHeader+size : frameHeader+size], true
}

func frameSum(frame []byte, size int) uint32 {
	return crc32.Update(crc32.Checksum(frame[:20], castagnoli), castagnoli, frame[frameHeader:frameHeader+size])
}

// padded is the size of a frame on disk.
func padded(record int, align uint32) int64 {
	a := int64(align)
	return (int64(frameHeader+record) + a - 1) / a * a
}
