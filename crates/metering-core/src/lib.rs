//! the pure half of metering: frames, lanes and chains, aggregation, blobs, settlement plans
