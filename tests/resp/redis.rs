//! The same malformed bytes to a real redis-server and to our decoder: the same answers, the same close. Says so and
//! passes where redis-server is not installed.
