package bolt

// Restless returns options with which the write-ahead log is moved into the file all the time.
func (o Options) Restless() Options {
	o.sizes = sizes{overlay: 4 << 10, log: 32 << 10, segment: 8 << 10, chunk: 3, behind: 1000}
	return o
}
