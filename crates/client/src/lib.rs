//! the caller's side: channels, deadlines, retries, and the Producer with its durable log
